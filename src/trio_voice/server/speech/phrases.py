"""What the offline dialogue says: greetings, abilities, questions, counting.

Invariant: everything said is derived from the tools, the instructions and the values heard; nothing is
promised that the tools do not offer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .schema import Kind, Slot, ToolForm, name_words
from .words import Heard, number_words, numbers_in, terms

COUNT_LIMIT = 100

STOPPED = "Okay."
HELLO_AGAIN = "Hello, I am here. How can I help you?"
NEVER_MIND = "Okay, never mind. Is there anything else?"
THANKS = "You're welcome. Is there anything else I can do for you?"
GOODBYE = "Goodbye, and have a nice day."
NOT_CAUGHT = "Sorry, I did not catch that."
ANYTHING_ELSE = "Is there anything else I can do for you?"
WORKING = "I am still working on that. One moment, please."

_QUOTED_GREETING = re.compile(
    r"(?:greet|greeting|open|start|begin|hello|say)[^\"“\n]{0,60}[\"“]([^\"”\n]{4,200})[\"”]", re.I
)
_WHO = re.compile(r"\byou(?:['’]re| are)\s+((?:an?|the)\s+[^.\n;:!?,(]{2,80}|[A-Z]\w{1,20})(?=[.\n;:!?,(]|$)", re.I)
_TOO_MUCH = re.compile(r"\s+(?:who|that|which|and you|working over|speaking)\b.*$", re.I)


def greeting(forms: Sequence[ToolForm], instructions: str) -> str:
    """Who speaks and what it can do: the greeting that the instructions quote, or one made from them."""
    quoted = _QUOTED_GREETING.search(instructions)
    if quoted:
        return quoted[1].strip()
    return f"Hello! {who(instructions)}{abilities(forms)} How can I help you?"


def who(instructions: str) -> str:
    """ "I am a support agent for Acme. ", from "You are a support agent for Acme."; or nothing."""
    match = _WHO.search(instructions)
    name = _TOO_MUCH.sub("", match[1]).strip() if match else ""
    return f"I am {name[:1].lower() + name[1:] if name[:2].lower() in {'a ', 'an', 'th'} else name}. " if name else ""


def listed(parts: Sequence[str], word: str = "and") -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}" if parts else ""


def abilities(forms: Sequence[ToolForm]) -> str:
    """What the tools allow, in one sentence."""
    if not forms:
        return "I can only make a little conversation here: I can count, or repeat what I said."
    deeds = list(dict.fromkeys(deed(form) for form in forms))
    if len(deeds) > 6:
        deeds = [*deeds[:6], "do some more"]
    return f"I can {listed(deeds, 'or')}."


_VERBS = terms(
    """
    look lookup schedule transfer get set book find check cancel send create make turn track search
    show tell add remove update change list play start stop open close order buy return fetch
    retrieve give hand connect put call report record calculate compute convert reserve arrange dim
    switch ask read write reset
    """
)
_SPLIT = {"lookup": "look up", "callback": "call back", "handoff": "hand you over", "setup": "set up"}
_CUT = re.compile(
    r"\s+(?:by|given|using|from its|from their|and returns?|and gets?|for the (?:user|customer|caller)|"
    r"with the given|based on|when|if|so that|once|only|identified|such as)\b.*$|\s*[(:;,\n].*$",
    re.I,
)


def deed(form: ToolForm) -> str:
    """What a tool does, to follow "I can": "look up an order"."""
    first = re.split(r"(?<=[a-z0-9])[.!?](?:\s|$)|\n", form.description.strip(), maxsplit=1)[0].strip().rstrip(".")
    first = _CUT.sub("", first)
    words = first.split()
    if 2 <= len(words) <= 12:
        verb = words[0].lower()
        if verb not in _VERBS:
            for bare in (verb.removesuffix("s"), verb.removesuffix("es"), f"{verb.removesuffix('ies')}y"):
                verb = bare if bare in _VERBS else verb
        if verb in _VERBS:
            if verb in {"get", "return", "fetch", "retrieve", "give"} and "return" not in form.name:
                verb = "tell you"
            rest = re.sub(r"\b(?:the|a) (?:user|customer|caller|client)\b(?!['’])", "you", " ".join(words[1:]))
            rest = re.sub(r"\b(?:the|a) (?:user|customer|caller|client)['’]s\b", "your", rest)
            return f"{_SPLIT.get(verb, verb)} {rest}"
    parts = name_words(form.name)
    if not parts:
        return "help"
    verb, rest_words = _SPLIT.get(parts[0], parts[0]), parts[1:]
    if verb == "get":
        return f"tell you the {' '.join(rest_words) or 'answer'}"
    if not rest_words:
        return f"{verb} something" if verb in {"look up", "set", "find"} else verb
    if rest_words[0] in {"to", "with"}:
        return f"{verb} you {rest_words[0]} {article(' '.join(rest_words[1:]) or 'someone')}"
    return f"{verb} {article(' '.join(rest_words))}"


def article(noun: str) -> str:
    """ "an order", "a callback", "lights"."""
    if noun.endswith("s") and not noun.endswith("ss"):
        return noun
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"


_OWN = {Kind.PHONE, Kind.EMAIL}


def question(slot: Slot) -> str:
    """Ask for one slot."""
    if slot.kind is Kind.CHOICE:
        return f"Which {slot.label}: {listed([spoken(choice) for choice in slot.choices][:8], 'or')}?"
    if slot.kind is Kind.BOOLEAN:
        if slot.name in {"on", "off"}:
            return "Should it be on or off?"
        return f"{slot.label.capitalize()}: yes or no?"
    if slot.kind in {Kind.INTEGER, Kind.NUMBER}:
        plural = slot.label.endswith("s") or slot.label == "people"
        return f"How many {slot.label}?" if plural else f"What should the {slot.label} be?"
    if slot.kind is Kind.REASON:
        return "What is it about?" if slot.label in {"reason", "topic", "subject"} else f"What is the {slot.label}?"
    if slot.kind is Kind.DAY:
        return "For which day?"
    if slot.kind in {Kind.CLOCK, Kind.MOMENT}:
        return "At what time?"
    if slot.kind is Kind.NAME and slot.label != "name":
        return f"Which {slot.label}?"
    whose = "your" if slot.kind in _OWN or slot.label in {"order number", "name", "account number"} else "the"
    return f"What is {whose} {slot.label}?"


def again(slot: Slot, partial: str = "") -> str:
    """Ask once more for a slot that the answer did not fill."""
    if slot.kind is Kind.CHOICE:
        return f"Sorry, I did not understand which {slot.label}. {question(slot)}"
    if partial:
        spelled = " ".join(partial)
        return f"I only heard {spelled}. Please say the rest, or the whole {slot.label}."
    hint = f" It looks like {slot.known[0]}." if slot.known else ""
    return f"Sorry, I did not get the {slot.label}.{hint} {question(slot)}"


def confirm(slot: Slot, value: Any) -> str:
    """Ask whether an uncertain value was meant."""
    return f"Did you say {spoken(value)}?"


def offer(form: ToolForm, values: dict[str, Any]) -> str:
    """Ask whether a tool that is only likely is wanted."""
    what = deed(form)
    for slot in form.slots:
        if isinstance(values.get(slot.name), str):
            noun = re.compile(rf"\b(?:an?|the) {re.escape(slot.label)}\b")
            said = spoken(values[slot.name])
            place = noun.search(what)
            what = f"{what[: place.start()]}{said}{what[place.end() :]}" if place else f"{what}, {said}"
    return f"Should I {what}?"


_TOPIC = re.compile(r"\b(?:about|whats|what is|hows|how is|is|are)\s+((?:the|my|your)\s+[^\W\d_]+)\b")


def out_of_scope(forms: Sequence[ToolForm], heard: Heard, verb: str | None = None) -> str:
    """Say honestly what cannot be done (`verb` it, where that is known), and what can."""
    if verb:
        return f"I'm sorry, I can't {verb} that. {abilities(forms)}"
    topic = _TOPIC.search(" ".join(heard.norms))
    noun = re.sub(r"^my\b", "your", topic[1]) if topic else ""
    noun = "" if noun.startswith("your ") and topic and topic[1].startswith("your ") else noun
    sorry = f"I'm sorry, I can't tell you about {noun}." if noun else "I'm sorry, I can't help with that."
    return f"{sorry} {abilities(forms)}"


def spoken(value: Any) -> str:
    """A value as it is said: no underscores, yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).replace("_", " ")


def counted(heard: Heard) -> str:
    """Count aloud as asked: to a number, or from one to another, up or down, never beyond a hundred."""
    numbers = [number.value for number in numbers_in(heard)]
    down = bool({"down", "backwards", "backward"} & set(heard.norms))
    first, last = (numbers[-1] if numbers else 10, 1) if down else (1, numbers[-1] if numbers else 10)
    if "from" in heard.norms and numbers:
        first = numbers[0]
        last = numbers[-1] if len(numbers) > 1 else (0 if down else first + 9)
    capped = max(first, last) > COUNT_LIMIT
    first, last = min(first, COUNT_LIMIT), min(last, COUNT_LIMIT)
    row = [number_words(n) for n in (range(first, last + 1) if first <= last else range(first, last - 1, -1))]
    groups = [", ".join(row[i : i + 5]) for i in range(0, len(row), 5)]
    text = " ".join(f"{group[0].upper()}{group[1:]}." for group in groups)
    return f"I only count to one hundred. {text}" if capped else text
