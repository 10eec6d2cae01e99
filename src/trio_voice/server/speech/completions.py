"""The chat-completions format: a conversation written as messages, a streamed answer read back.

Pure, beneath `llm.py`, which moves the bytes. Invariants: in what is written, every call is followed at once by
its output, as the servers demand, whatever order the items came in; what is read is given out sentence by
sentence as soon as each is whole, and calls only when the answer is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trio_voice.errors import TrioVoiceError

from .dialogue import Call, Part, Say

if TYPE_CHECKING:
    from trio_voice.protocol.items import Item, Tool

SPOKEN_STYLE = "Your words are spoken aloud: answer in one to three short plain sentences, without lists or markup."
NO_OUTPUT_YET = '{"status": "still running"}'
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)]*\s+|\n+")
_ABBREVIATED = re.compile(r"(?:^|\s)(?:Mr|Mrs|Ms|Dr|St|No|vs|e\.g|i\.e|approx|[A-Z])\.\s+$|(?:^|\n)\s*[0-9]+\.\s+$")
_MARKUP = re.compile(r"[*_`#]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}|^\s*[-•]\s+")


class LlmError(TrioVoiceError):
    """The model's server cannot be reached, refuses, or answers nonsense; the message says what to do.

    `retryable` tells whether the same request may succeed later.
    """

    def __init__(self, reason: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.retryable = retryable


def request_body(items: Sequence[Item], tools: Sequence[Tool], instructions: str, model: str) -> dict[str, Any]:
    """The JSON of a streaming request."""
    body: dict[str, Any] = {"model": model, "messages": messages(items, instructions), "stream": True}
    functions = [function for function in map(_function, tools) if function is not None]
    if functions:
        body["tools"] = functions
    return body


def _function(tool: Tool) -> dict[str, Any] | None:
    if tool.type != "function" or not tool.name:
        return None
    parameters = tool.parameters or {"type": "object", "properties": {}}
    described = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": parameters}}


def messages(items: Sequence[Item], instructions: str) -> list[dict[str, Any]]:
    """The conversation as chat messages, the instructions first."""
    written: list[dict[str, Any]] = [
        {"role": "system", "content": f"{instructions}\n\n{SPOKEN_STYLE}".strip()},
    ]
    outputs = {item.call_id: item.output or "" for item in items if item.type == "function_call_output"}
    calls: list[dict[str, Any]] = []

    def close_calls() -> None:
        if not calls:
            return
        written.append({"role": "assistant", "content": None, "tool_calls": list(calls)})
        for call in calls:
            output = outputs.get(call["id"], NO_OUTPUT_YET)
            written.append({"role": "tool", "tool_call_id": call["id"], "content": output})
        calls.clear()

    for item in items:
        if item.type == "function_call" and item.call_id and item.name:
            function = {"name": item.name, "arguments": item.arguments or "{}"}
            calls.append({"id": item.call_id, "type": "function", "function": function})
        elif item.type == "message" and item.text.strip():
            close_calls()
            role = item.role if item.role in {"user", "assistant"} else "system"
            written.append({"role": role, "content": item.text})
    close_calls()
    return written


class SentenceCutter:
    """Cuts words that arrive in pieces into sentences to speak, without markup and without hidden thoughts."""

    def __init__(self) -> None:
        self._waiting = ""

    def feed(self, text: str) -> list[str]:
        """Add a piece; get the sentences that are now whole."""
        self._waiting = _without_thoughts(self._waiting + text)
        if "<" in self._waiting and _may_open_thought(self._waiting):
            return []
        sentences: list[str] = []
        begin = 0
        for end in _SENTENCE_END.finditer(self._waiting):
            if end.end() == len(self._waiting) and not end.group().endswith((" ", "\n")):
                break
            if _ABBREVIATED.search(self._waiting[begin : end.end()]):
                continue
            sentences.append(self._waiting[begin : end.end()])
            begin = end.end()
        self._waiting = self._waiting[begin:]
        return [clean for clean in map(_plain, sentences) if clean]

    def flush(self) -> list[str]:
        """The rest, when the answer is over. A thought that was never closed is not spoken."""
        rest, self._waiting = self._waiting.split("<think>")[0], ""
        clean = _plain(rest)
        return [clean] if clean else []


def _without_thoughts(text: str) -> str:
    return re.sub(r"<think>.*?</think>\s*", "", text, flags=re.DOTALL)


def _may_open_thought(text: str) -> bool:
    """Whether a thought is open, or its tag is only half there."""
    tail = text[text.rindex("<") :]
    return "<think>" in text or "<think>".startswith(tail)


def _plain(sentence: str) -> str:
    return " ".join(_MARKUP.sub("", sentence).split())


class Answer:
    """A streamed answer being read: pieces of JSON in, sentences out, calls at the end."""

    def __init__(self) -> None:
        self._cutter = SentenceCutter()
        self._calls: dict[int, list[str]] = {}
        self._began = False

    def feed(self, payload: str) -> list[Part]:
        """Take the JSON of one streamed event (or of a whole answer that was not streamed).

        Raises: LlmError if it is no JSON, has another form, or reports an error.
        """
        try:
            chunk = json.loads(payload)
        except (ValueError, RecursionError):
            raise LlmError(
                f"the model's server sent something that is no JSON ({payload[:80]!r}): "
                "check that the URL is of an OpenAI-compatible chat-completions endpoint"
            ) from None
        if not isinstance(chunk, dict):
            raise _odd(payload)
        if chunk.get("error"):
            raise LlmError(f"the model's server reports: {error_text(chunk)}", retryable=True)
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            raise _odd(payload)
        if not choices:  # usage only
            return []
        first = choices[0]
        delta = (first.get("delta") or first.get("message")) if isinstance(first, dict) else None
        self._began = True
        if not isinstance(delta, dict):
            return []
        for place, call in enumerate(delta.get("tool_calls") or ()):
            self._add_call(place, call)
        content = delta.get("content")
        return [Say(text) for text in self._cutter.feed(content)] if isinstance(content, str) else []

    def _add_call(self, place: int, call: Any) -> None:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise _odd(str(call))
        index = call.get("index")
        index = index if isinstance(index, int) else place
        known = self._calls.setdefault(index, ["", ""])
        if isinstance(function.get("name"), str) and not known[0]:
            known[0] = function["name"]
        arguments = function.get("arguments")
        known[1] += arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""

    def finish(self) -> list[Part]:
        """What is left when the answer is over: its last words, then its calls.

        Raises: LlmError if nothing came, or a call's arguments are no JSON object.
        """
        if not self._began:
            raise LlmError(
                "the model's server closed the stream before it answered: look into its log, and try again",
                retryable=True,
            )
        parts: list[Part] = [Say(text) for text in self._cutter.flush()]
        for _, (name, arguments) in sorted(self._calls.items()):
            try:
                valid = bool(name) and isinstance(json.loads(arguments or "{}"), dict)
            except (ValueError, RecursionError):
                valid = False
            if not valid:
                raise LlmError(
                    f"the model called {name or 'a tool without a name'} with arguments that are no JSON object "
                    f"({arguments[:80]!r}): use a model that was trained for function calling",
                    retryable=True,
                )
            parts.append(Call(name, arguments or "{}"))
        return parts


def _odd(payload: str) -> LlmError:
    return LlmError(
        f"the model's server sent JSON of another form ({payload[:80]!r}): "
        "check that the URL is of an OpenAI-compatible chat-completions endpoint"
    )


def error_text(body: Any) -> str:
    """The message of an error as servers write it: {"error": {"message": ...}}, {"error": "..."} or text."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return " ".join(str(error).split())[:300]
