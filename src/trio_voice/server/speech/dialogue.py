"""The answer to a conversation, without a model: match a tool, fill its slots, ask, call, report.

The brain of the offline server: `brain.py` speaks what `reply` returns. It has no memory of its own: what was
asked, and what is still missing, is found by going through the items again.
Invariant: `reply` is a pure function that raises for no conversation; every call it makes satisfies the
tool's schema (required, enum, type).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from . import phrases
from .intents import MAYBE_SCORE, SURE_SCORE, Intent, Talk, loose_talk_of, rank, talk_of, tool_words, undoing
from .results import told
from .schema import Filled, Kind, Slot, ToolForm, form_of
from .slots import accepts, fill, yes_or_no
from .words import Heard, digit_runs, hear

if TYPE_CHECKING:
    from trio_voice.protocol.items import Item, Tool

REMEMBERED_TURNS = 8
"""How many of the user's last utterances can bear on an unfinished request; bounds the work of a reply."""
MAX_CALLS = 4
SWITCH_SCORE = 3.0
"""How sure a new request must be to replace the question that is open."""


@attrs.frozen
class Say:
    """Words to speak."""

    text: str


@attrs.frozen
class Call:
    """A tool to call; `arguments` is a JSON object as text."""

    name: str
    arguments: str


Part: TypeAlias = Say | Call


@attrs.frozen
class Reply:
    """What to do next, in order."""

    parts: tuple[Part, ...]


@attrs.frozen
class _Pending:
    """A request that lacks something: what is known, and what was asked."""

    form: ToolForm
    values: dict[str, Any]
    asked: str | None = None
    """The slot in question; None while it is the request itself that was asked about."""
    guess: Any = None
    """A value that the user was asked to confirm."""
    partial: str = ""
    """Digits heard so far of a number that is not complete."""


@attrs.frozen
class _Scene:
    """What an utterance is answered in."""

    forms: list[ToolForm]
    instructions: str
    last_called: str | None
    introduced: bool
    """Something was said before, so a hello needs no introduction."""


@attrs.frozen
class _Step:
    parts: tuple[Part, ...]
    pending: _Pending | None = None
    repeat: bool = False


def reply(items: Sequence[Item], tools: Sequence[Tool], instructions: str) -> Reply:
    """What to answer to `items`, the conversation so far, oldest first."""
    forms = [form for form in (form_of(tool, instructions) for tool in tools) if form is not None]
    return Reply(_reply(list(items), forms, instructions))


def _reply(items: list[Item], forms: list[ToolForm], instructions: str) -> tuple[Part, ...]:
    last_said = max((i for i, item in enumerate(items) if _is(item, "assistant")), default=-1)
    results = _results(items, last_said)
    users = [i for i, item in enumerate(items) if _is(item, "user")]
    if not users:
        text = " ".join(results) if results else "" if last_said >= 0 else phrases.greeting(forms, instructions)
        return (Say(text or phrases.ANYTHING_ELSE),)
    step = _replay(items, users, forms, instructions)
    last_call = max((i for i, item in enumerate(items) if item.type.startswith("function_call")), default=-1)
    if users[-1] < max(last_said, last_call):
        if results:
            return (Say(" ".join(results)),)
        if last_call > last_said:
            return (Say(phrases.WORKING),)
        return (Say(_reask(step.pending) or phrases.ANYTHING_ELSE),)
    if step.repeat:
        return (Say(_said_before(items, forms, instructions) or phrases.greeting(forms, instructions)),)
    dismissed = talk_of(hear(items[users[-1]].text)) is Talk.STOP
    if results and not dismissed:
        return (Say(" ".join(results)), *step.parts)
    running = _running(items)
    again = tuple(
        part for part in step.parts if not (isinstance(part, Call) and (part.name, part.arguments) in running)
    )
    return again or (Say(phrases.WORKING),)


def _is(item: Item, role: str) -> bool:
    """A message of `role`; the assistant's counts only where something of it was heard."""
    if item.type != "message" or item.role != role:
        return False
    return role == "user" or bool(item.text.strip())


def _results(items: Sequence[Item], last_said: int) -> list[str]:
    """A sentence for each tool output that the assistant has not spoken about."""
    calls = {item.call_id: item for item in items if item.type == "function_call"}
    sentences: list[str] = []
    for item in items[last_said + 1 :]:
        if item.type == "function_call_output":
            call = calls.get(item.call_id)
            sentences.append(told(item.output or "", (call and call.name) or "", (call and call.arguments) or ""))
    return list(dict.fromkeys(sentences))


def _running(items: Sequence[Item]) -> set[tuple[str, str]]:
    """Calls whose output has not come."""
    done = {item.call_id for item in items if item.type == "function_call_output"}
    calls = [item for item in items if item.type == "function_call" and item.call_id not in done]
    return {(call.name or "", call.arguments or "") for call in calls}


def _said_before(items: list[Item], forms: list[ToolForm], instructions: str) -> str:
    """What the assistant said last, whole, even where the user cut it short."""
    end = len(items)
    while end and (_is(items[end - 1], "user") and talk_of(hear(items[end - 1].text)) is Talk.REPEAT):
        end -= 1
        while end and _is(items[end - 1], "assistant"):
            end -= 1
    heard = next((item.text for item in reversed(items) if _is(item, "assistant")), "")
    before = items[:end]
    if not before and not heard:
        return ""
    whole = " ".join(part.text for part in _reply(before, forms, instructions) if isinstance(part, Say))
    return whole if whole.startswith(heard.strip()) or not heard else heard


def _replay(items: list[Item], users: list[int], forms: list[ToolForm], instructions: str) -> _Step:
    """Go through the user's last utterances again, to know what is pending, and answer the last one."""
    step = _Step(())
    scene = _Scene(forms, instructions, None, introduced=any(_is(item, "assistant") for item in items[: users[-1]]))
    for item in items[users[-REMEMBERED_TURNS:][0] :]:
        if item.type == "function_call" and item.name:
            scene = attrs.evolve(scene, last_called=item.name)
        elif _is(item, "user"):
            step = _step(hear(item.text), step.pending, scene)
    return step


def _step(heard: Heard, pending: _Pending | None, scene: _Scene) -> _Step:
    """Answer one utterance."""
    if not heard.words:
        return _Step((Say(f"{phrases.NOT_CAUGHT} {_reask(pending)}".strip()),), pending)
    talk = talk_of(heard)
    match talk:
        case Talk.REPEAT:
            return _Step((), pending, repeat=True)
        case Talk.STOP:
            return _Step((Say(phrases.NEVER_MIND if pending else phrases.STOPPED),))
        case Talk.COUNT:
            return _Step((Say(phrases.counted(heard)),), pending)
        case Talk.ABILITIES:
            text = f"{phrases.who(scene.instructions)}{phrases.abilities(scene.forms)}"
            return _Step((Say(f"{text} {_reask(pending)}".strip()),), pending)
    if pending is not None:
        step = _continue(heard, pending, scene.forms, talk)
        if step is not None:
            return step
    elif talk is Talk.YES:
        return _Step((Say(f"All right. {phrases.ANYTHING_ELSE}"),))
    elif talk is Talk.NO:
        return _Step((Say("All right. Just say so when you need me."),))
    return _begin(heard, scene)


def _begin(heard: Heard, scene: _Scene) -> _Step:
    """Answer a new request, or say honestly that it is none."""
    forms = scene.forms
    intents = rank(forms, heard, last_called=scene.last_called)
    best = intents[0] if intents else None
    verb = undoing(best.form, heard) if best is not None and best.score >= MAYBE_SCORE else None
    if verb is not None:
        return _Step((Say(phrases.out_of_scope(forms, heard, verb)),))
    if best is not None and best.score >= SURE_SCORE:
        return _both(heard, forms) or _pursue(best.form, {}, best.filled, heard)
    match loose_talk_of(heard):
        case Talk.GOODBYE:
            return _Step((Say(phrases.GOODBYE),))
        case Talk.THANKS:
            return _Step((Say(phrases.THANKS),))
        case Talk.HELLO:
            text = phrases.HELLO_AGAIN if scene.introduced else phrases.greeting(forms, scene.instructions)
            return _Step((Say(text),))
    if best is not None and best.score >= MAYBE_SCORE:
        values = _values(best.form, best.filled)
        return _Step((Say(phrases.offer(best.form, values)),), _Pending(best.form, values))
    return _Step((Say(phrases.out_of_scope(forms, heard)),))


def _both(heard: Heard, forms: list[ToolForm]) -> _Step | None:
    """Two requests in one utterance, where both are complete."""
    cuts = [i for i, norm in enumerate(heard.norms) if norm in {"and", "also", "then"} and 0 < i < len(heard.words) - 1]
    cuts += [i + 1 for i, word in enumerate(heard.words[:-1]) if word.ends_clause]
    for cut in sorted(cuts)[:MAX_CALLS]:
        halves = [hear(heard.slice(0, cut)), hear(heard.slice(cut, len(heard.words)))]
        ranked = [rank(forms, half) for half in halves]
        intents: list[Intent] = [r[0] for r in ranked if r and r[0].score >= SURE_SCORE and r[0].complete]
        if len(intents) == 2 and intents[0].form.name != intents[1].form.name:
            return _Step(tuple(_call(i.form, _values(i.form, i.filled)) for i in intents))
    return None


def _values(form: ToolForm, filled: dict[str, Filled]) -> dict[str, Any]:
    return {name: value.value for name, value in filled.items() if value.sure and form.slot(name) is not None}


def _pursue(form: ToolForm, known: dict[str, Any], filled: dict[str, Filled], heard: Heard) -> _Step:
    """Call the tool, or ask for what it still lacks."""
    values = {**known, **_values(form, filled)}
    for slot in form.required:
        if slot.name in values:
            continue
        doubtful = filled.get(slot.name)
        if doubtful is not None:
            waiting = _Pending(form, values, slot.name, doubtful.value, partial=_partial(slot, heard))
            return _Step((Say(phrases.confirm(slot, doubtful.value)),), waiting)
        partial = _partial(slot, heard)
        text = phrases.again(slot, partial) if partial else phrases.question(slot)
        return _Step((Say(text),), _Pending(form, values, slot.name, partial=partial))
    calls = [_call(form, values)]
    if len(form.required) == 1 and not form.required[0].in_list:
        slot = form.required[0]
        others = filled[slot.name].others if slot.name in filled else ()
        calls += [_call(form, {**values, slot.name: other}) for other in others if accepts(slot, other)]
    return _Step(tuple(calls[:MAX_CALLS]))


def _call(form: ToolForm, values: dict[str, Any]) -> Call:
    arguments: dict[str, Any] = {}
    for slot in form.slots:
        if slot.name in values:
            arguments[slot.name] = [values[slot.name]] if slot.in_list else values[slot.name]
    return Call(form.name, json.dumps(arguments, ensure_ascii=False))


def _partial(slot: Slot, heard: Heard, before: str = "") -> str:
    """Digits of a number that was not said to its end."""
    if slot.kind is not Kind.PHONE and not slot.shapes:
        return ""
    longest = 6 if slot.kind is Kind.PHONE else max(shape.digits for shape in slot.shapes) - 1
    digits = before + "".join(readings[0].text for readings in digit_runs(heard))
    return digits if 2 < len(digits) <= longest or (before and len(digits) <= longest) else ""


def _reask(pending: _Pending | None) -> str:
    """The open question once more, or nothing."""
    if pending is None:
        return ""
    slot = pending.form.slot(pending.asked) if pending.asked else None
    if slot is None:
        return phrases.offer(pending.form, pending.values)
    return phrases.confirm(slot, pending.guess) if pending.guess is not None else phrases.question(slot)


def _continue(heard: Heard, pending: _Pending, forms: list[ToolForm], talk: Talk | None) -> _Step | None:
    """Take an utterance as the answer to the open question; None where it is a new request."""
    form = pending.form
    slot = form.slot(pending.asked) if pending.asked else None
    answer = yes_or_no(heard) if len(heard.words) <= 3 or talk in {Talk.YES, Talk.NO} else None
    if slot is None:  # the tool itself was asked about
        if talk is Talk.YES or answer:
            return _pursue(form, pending.values, {}, heard)
        if talk is Talk.NO:
            return _Step((Say(phrases.NEVER_MIND),))
        return None
    if pending.guess is not None:
        if talk is Talk.YES or answer:
            return _pursue(form, {**pending.values, slot.name: pending.guess}, {}, heard)
        if talk is Talk.NO:
            return _Step((Say(f"Sorry. {phrases.question(slot)}"),), attrs.evolve(pending, guess=None))
    text = slot.kind in {Kind.REASON, Kind.NAME}
    others = rank([f for f in forms if f.name != form.name], heard)
    other = others[0] if others else None
    lacking = [s for s in form.slots if s.name not in pending.values]
    filled = fill(lacking, heard, asked=slot.name, tool_words=tool_words(form))
    if slot.name not in filled and pending.partial:
        digits = pending.partial + "".join(readings[0].text for readings in digit_runs(heard))
        filled |= fill([slot], hear(digits), asked=slot.name)
    wants_other = other is not None and other.score >= SWITCH_SCORE and (other.complete or not text)
    if wants_other and (slot.name not in filled or text):
        return None
    if slot.name in filled:
        return _pursue(form, pending.values, filled, heard)
    if talk is Talk.NO:
        return _Step((Say(phrases.NEVER_MIND),))
    if loose_talk_of(heard) is Talk.GOODBYE:
        return None
    partial = _partial(slot, heard, pending.partial)
    values = {**pending.values, **_values(form, filled)}
    return _Step((Say(phrases.again(slot, partial)),), _Pending(form, values, slot.name, partial=partial))
