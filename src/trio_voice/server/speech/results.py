"""Turn what a tool answered into a sentence.

Invariant: any text is accepted, and what counts in it (the status, the message, the error) is said with its
own words, so that a listener and a test can find them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .phrases import listed, spoken
from .schema import label, name_words
from .words import terms

MAX_CHARACTERS = 600
MAX_LISTED = 3
_MAX_DEPTH = 3

_HAS = {"arrived", "started", "ended", "finished", "failed", "expired", "succeeded"}
# "Has shipped" is heard as "a ship" now and then; of 25 times "has been shipped" it never was.
_HAS_BEEN = terms(
    """
    delivered shipped cancelled canceled refunded returned booked scheduled confirmed placed received
    transferred paid accepted rejected sent created updated reserved dispatched completed approved
    denied closed opened queued requested
    """
)
_BAD = {"error", "failed", "failure", "not_found", "not found", "invalid", "unknown"}
_GOOD = {"ok", "okay", "success", "done", "true", "successful"}
_WORDING = {
    "eta": "expected {}", "expected": "expected {}", "arrival": "expected {}", "delivery_date": "expected {}",
    "estimated_delivery": "expected {}", "carrier": "carrier {}", "ready": "ready: {}",
}  # fmt: skip
_SAID_WHOLE = ("message", "text", "answer", "result", "summary", "response", "content", "note")
_QUIET = {"success", "ok", "code", "type", "timestamp", "created_at", "is_error"}


def told(output: str, name: str = "", arguments: str = "") -> str:
    """The sentence, or sentences, for one output of the tool `name` that was called with `arguments`."""
    value = _parsed(output)
    text = _told(value, name_words(name), _parsed(arguments)) or "That is done."
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS].rsplit(' ', 1)[0].rstrip(',;:. ')} and so on."
    return text


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _told(value: Any, about: Sequence[str], arguments: Any) -> str:
    match value:
        case None | True | "":
            return "That is done."
        case False:
            return "I'm sorry, that did not work."
        case dict():
            return _told_mapping(value, about, arguments)
        case list():
            if not value:
                return "I found nothing."
            shown = [_flat(one, 1) for one in value[:MAX_LISTED]]
            if all(not isinstance(one, (dict, list)) for one in value) and len(value) <= 8:
                return _sentence(listed([_flat(one, 1) for one in value]))
            return f"I found {len(value)}. " + " ".join(_sentence(one) for one in shown)
        case _:
            text = _flat(value, 1).strip()
            bad = text.lower().startswith(("error", "failed", "an error"))
            return f"I'm sorry, that did not work. {_sentence(text)}" if bad else _sentence(text)


def _told_mapping(values: Mapping[str, Any], about: Sequence[str], arguments: Any) -> str:
    left = {str(key): value for key, value in values.items() if value is not None and value != ""}
    error = left.get("error") or left.get("errors")
    status = left.get("status", left.get("state"))
    failed = bool(error) or left.get("success") is False or left.get("ok") is False or left.get("is_error") is True
    failed = failed or (isinstance(status, str) and status.lower() in _BAD)
    if failed:
        why = left.get("message") or (error if error is not True else None) or left.get("detail") or left.get("reason")
        why = why.get("message", why) if isinstance(why, dict) else why
        why = why if why else (spoken(status) if isinstance(status, str) else "")
        text = f"I'm sorry, that did not work. {_sentence(_flat(why, 1))}".strip()
        tried = [_detail(key, value) for key, value in _given(arguments) if str(value).lower() not in text.lower()]
        return f"{text} I tried {listed(tried)}." if tried else text
    whole = [key for key in _SAID_WHOLE if isinstance(left.get(key), str)]
    sentences = [_sentence(left.pop(key)) for key in whole]
    said = " ".join(sentences).lower()
    subject, subject_key = _subject(left, about)
    status_key = next((key for key in ("status", "state") if isinstance(left.get(key), str)), None)
    head = ""
    if status_key:
        word = spoken(left.pop(status_key))
        if word.lower() in _GOOD:
            head = ""
        elif word.lower() not in said:
            left.pop(subject_key, None)
            head = f"{subject} {_verb(word)}"
            department = left.pop("department", None)
            head += f" to {spoken(department)}" if department and "transfer" in word.lower() else ""
            carrier = left.pop("carrier", None)
            head += f" with {spoken(carrier)}" if isinstance(carrier, str) else ""
    elif "transfer" in about and isinstance(left.get("department"), str) and not sentences:
        head = f"I am transferring you to {spoken(left.pop('department'))}"
    details = [_detail(key, value) for key, value in left.items() if key not in _QUIET]
    details = [text for text in details if text and not _repeats(text, said)]
    if head:
        sentences.insert(0, _sentence(", ".join([head, listed(details)] if details else [head])))
    elif details:
        sentences.append(_sentence(listed(details)))
    if not sentences or sentences == ["That is done."]:
        repeated = [_detail(key, value) for key, value in _given(arguments)]
        return _sentence(f"That is done: {listed(repeated)}") if repeated else "That is done."
    return " ".join(sentences)


def _repeats(detail: str, said: str) -> bool:
    """Whether the value of a detail is in what is said anyhow."""
    return bool(said) and detail.rsplit(": " if ": " in detail else " ", 1)[-1].lower() in said


def _given(arguments: Any) -> list[tuple[str, Any]]:
    """The arguments of a call that say something."""
    given = arguments.items() if isinstance(arguments, dict) else ()
    return [(str(key), value) for key, value in given if value not in (None, "")]


def _subject(left: Mapping[str, Any], about: Sequence[str]) -> tuple[str, str]:
    """Whose status it is: "Order ORD-12345", "The callback", "It"."""
    for key, value in left.items():
        words = name_words(key)
        if words and words[-1] in {"id", "number"} and isinstance(value, (str, int)) and not isinstance(value, bool):
            noun = " ".join(words[:-1])
            if noun and noun not in {"confirmation", "phone", "tracking", "reference", "ticket"}:
                return f"{noun.capitalize()} {value}", key
    noun = about[-1] if len(about) > 1 else ""
    return (f"The {noun}" if noun and "to" not in about else "It"), ""


def _verb(status: str) -> str:
    low = status.lower()
    if low in _HAS:
        return f"has {low}"
    if low in _HAS_BEEN:
        return f"has been {low}"
    return (
        f"is {status}" if " " not in low or low.startswith(("in ", "on ", "out ", "not ", "being ")) else f": {status}"
    )


def _detail(key: str, value: Any) -> str:
    if value is True:
        return label(key)
    text = _flat(value, 1)
    if not text:
        return ""
    if key in _WORDING:
        return _WORDING[key].format(text)
    return f"{label(key)} {text}" if len(text.split()) < 4 else f"{label(key)}: {text}"


def _flat(value: Any, depth: int) -> str:
    if isinstance(value, dict):
        if depth > _MAX_DEPTH:
            return ""
        return ", ".join(f"{label(str(k))} {_flat(v, depth + 1)}" for k, v in list(value.items())[:6] if v is not None)
    if isinstance(value, list):
        if depth > _MAX_DEPTH:
            return ""
        return listed([_flat(one, depth + 1) for one in value[:6]])
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return spoken(value)[:MAX_CHARACTERS] if isinstance(value, bool) else str(value)[:MAX_CHARACTERS]


def _sentence(text: Any) -> str:
    words = spoken(text).strip() if not isinstance(text, str) else text.strip()
    if not words:
        return ""
    return f"{words[0].upper()}{words[1:]}{'' if words[-1] in '.!?…' else '.'}"
