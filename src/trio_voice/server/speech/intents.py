"""Which tool, or which small talk, an utterance asks for.

Between `words` and `dialogue`. Invariant: a score depends only on the utterance and the tools, so the same
conversation always leads to the same answer.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from functools import lru_cache

import attrs

from .schema import Filled, Kind, ToolForm, name_words
from .slots import fill
from .words import STOP_WORDS, Heard, hear, stem, terms

SURE_SCORE = 1.9
MAYBE_SCORE = 0.9
OUTRIGHT_BONUS = 0.3
"""For "call me" and "let me speak to": what follows is then the topic, not the request."""
REPEATED_TOOL_BONUS = 1.0
"""For the tool called last, so that "and 67890?" continues."""


class Talk(enum.Enum):
    """What is answered without a tool."""

    HELLO = "hello"
    THANKS = "thanks"
    GOODBYE = "goodbye"
    ABILITIES = "abilities"
    COUNT = "count"
    REPEAT = "repeat"
    STOP = "stop"
    YES = "yes"
    NO = "no"


_POLITE = (
    r"(?:(?:please|um|uh|well|oh|okay|ok|hey|no|actually|just|can you|could you|would you|now|then|sorry|so|lets)"
    r"\s+)*"
)
_END = r"(?:\s+(?:please|now|it|that|thanks|there|again|for me|then))*$"
_TALK: tuple[tuple[Talk, re.Pattern[str]], ...] = tuple(
    (talk, re.compile(rf"^{_POLITE}(?:{pattern})"))
    for talk, pattern in (
        (Talk.COUNT, r"(?:count|count\w* (?:up|down|from|to|too|two))\b(?! me)"),
        (
            Talk.REPEAT,
            r"(?:repeat (?:that|it|please|yourself|what you said)|repeat|say (?:that|it) again|"
            r"what did you say|pardon(?: me)?|come again|say again|one more time|what|once more|"
            rf"i did(?:nt| not) (?:hear|catch|get) (?:that|you|it)){_END}",
        ),
        (
            Talk.STOP,
            r"(?:stop|stop (?:talking|it|that|counting)|never ?mind|forget (?:it|about it|that)|cancel|quiet|"
            r"be quiet|shut up|enough|thats enough|hold on|wait(?: a (?:minute|moment|second))?|"
            rf"no thanks|no thank you|nothing){_END}",
        ),
        (
            Talk.ABILITIES,
            r"(?:what (?:can|do|could|else can) you (?:do|help|offer)|who are you|what are you|what else$|"
            r"what (?:can i|should i|do i) (?:ask|say|do)|how can you help|how does this work|help$|help me$|"
            r"what are my options|whats your name|what is your name|can you help me$|i need (?:some )?help$)",
        ),
        (Talk.YES, rf"(?:yes|yeah|yep|yup|sure|correct|right|thats right|okay|ok|exactly|true){_END}"),
        (Talk.NO, rf"(?:no|nope|nah|wrong|thats wrong|incorrect|not really){_END}"),
    )
)
_LOOSE: tuple[tuple[Talk, re.Pattern[str]], ...] = (
    (
        Talk.GOODBYE,
        re.compile(r"\b(?:goodbye|good bye|bye|see you|that(?:s| is) all|that will be all|have a nice)\b"),
    ),
    (Talk.THANKS, re.compile(r"\b(?:thanks|thank you|thank|cheers|great|perfect|wonderful|awesome)\b")),
    (
        Talk.HELLO,
        re.compile(r"^(?:hello|hallo|hi|hey|good (?:morning|afternoon|evening|day)|greetings|are you there)\b"),
    ),
)
_COUNTS_NOT = re.compile(
    r"^(?:thanks|thank you|hello|hi|hey) (?!you\b|again\b|there\b|very\b|so\b|for\b)\w+ \w+ \w+ \w+ \w+ \w+"
)


def talk_of(heard: Heard) -> Talk | None:
    """Small talk that the whole utterance is; requests are not."""
    said = " ".join(heard.norms)
    return next((talk for talk, pattern in _TALK if pattern.search(said)), None)


def loose_talk_of(heard: Heard) -> Talk | None:
    """A greeting, thanks or a goodbye somewhere in an utterance that no tool answers."""
    said = " ".join(heard.norms)
    if _COUNTS_NOT.search(said):
        return None
    return next((talk for talk, pattern in _LOOSE if pattern.search(said)), None)


_PHRASES = tuple(
    (re.compile(pattern), put)
    for pattern, put in (
        (
            r"\b(?:call|ring|phone) (?:me|us) back\b|\bcall ?back\b|\bcalled back\b|\bcalling me back\b",
            "callback",
        ),
        (
            r"\b(?:give (?:me|us) a (?:call|ring)|(?:someone|somebody|you) (?:to )?(?:call|phone|ring) me)\b",
            "callback",
        ),
        (
            r"^(?:call|ring|phone) me\b|\b(?:could|can|would|please) (?:you )?(?:call|ring|phone) me\b",
            "callback",
        ),
        (
            r"\b(?:put|pass|send) (?:me )?(?:through|over)\b|\bconnect me\b|\bpass me\b|\bhand me\b",
            "transfer",
        ),
        (
            r"\b(?:speak|talk|chat) (?:to|with|too|two)\b|\bget me (?:to|an?|some|through)\b|\btransform me",
            "transfer",
        ),
        (r"\bwhere(?:s| is| are|re)?\b", "lookup"),
        (
            r"\blook(?:ing|ed)? (?:it |that )?(?:up|for|at|into)\b|\bfind out\b|\bwhat happened (?:to|with)",
            "lookup",
        ),
        (r"\bset (?:it )?up\b|\barrange\b", "schedule"),
        (r"\b(?:turn|switch|put) (?:the |my )?(on|off)\b", r"set \1"),
        (r"\bsend (?:it |this |that |them )?back\b", "return"),
    )
)
_SYNONYMS = (
    "lookup look track trace find check status locate search arrive arrived deliver delivered shipped fetch",
    "order package parcel shipment delivery odor border",
    "callback ring phone telephone",
    "schedule book reserve arrange appointment plan",
    "transfer connect operator human agent representative escalate handoff forward transferred",
    "department team desk",
    "weather forecast rain raining sunny snow temperature umbrella",
    "light lamp bulb lights brightness dim bright",
    "table restaurant dinner lunch seats",
    "set turn switch change adjust make put",
    "cancel abort",
    "refund return exchange",
)
_VERBS = terms("turn switch set put make show tell change look check like would order percent degrees")
_GROUP = {stem(word): n for n, group in enumerate(_SYNONYMS) for word in group.split()}


_UNDOING = terms("cancel delete remove change modify edit update")
"""Verbs so unlike the others that a tool which does not name them is not what was asked for."""


def undoing(form: ToolForm, heard: Heard) -> str | None:
    """The verb that asks for something else than `form` does, as "cancel" in "cancel my order"."""
    own = _weights(form)
    for i, norm in enumerate(heard.norms[:8]):
        before = set(heard.norms[max(0, i - 2) : i])
        leads = i == 0 or before & {"to", "please", "you", "i", "and"}
        if norm in _UNDOING and leads and not own.keys() & {stem(verb) for verb in _UNDOING}:
            return norm
    return None


@attrs.frozen
class Intent:
    """A tool that may be meant, how likely, and the slots already said."""

    form: ToolForm
    score: float
    filled: dict[str, Filled]

    @property
    def complete(self) -> bool:
        """Nothing is left to ask."""
        return all(slot.name in self.filled and self.filled[slot.name].sure for slot in self.form.required)


def _content(text: str) -> list[str]:
    return [stem(norm) for norm in hear(text).norms if norm not in STOP_WORDS and len(norm) > 1]


@lru_cache(maxsize=64)
def _name_stems(form: ToolForm) -> set[str]:
    return {stem(word) for word in name_words(form.name) if word not in STOP_WORDS}


@lru_cache(maxsize=64)
def tool_words(form: ToolForm) -> frozenset[str]:
    """Stems that name the tool, so they are not values of its slots."""
    names = _name_stems(form)
    groups = {_GROUP[name] for name in names if name in _GROUP}
    kin = {word for word, group in _GROUP.items() if group in groups}
    verbs = {stem(word) for word in _VERBS}
    return frozenset(names | kin | verbs)


@lru_cache(maxsize=64)
def _weights(form: ToolForm) -> dict[str, float]:
    """How much each stem in a tool's schema says for the tool."""
    weights: dict[str, float] = {}

    def put(words: list[str], weight: float) -> None:
        for word in words:
            weights[word] = max(weights.get(word, 0.0), weight)

    put([word for word in name_words(form.name) for word in _content(word)], 2.0)
    put(_content(form.description.split(".")[0]), 1.0)
    put(_content(form.description), 0.6)
    for slot in form.slots:
        put(_content(" ".join(name_words(slot.name))), 0.8 if slot.required else 0.4)
        put(_content(slot.description), 0.4)
        if slot.kind is Kind.CHOICE:
            put(_content(" ".join(str(choice) for choice in slot.choices)), 1.0)
    return weights


_EVIDENCE = {
    Kind.IDENTIFIER: 0.9, Kind.PHONE: 0.9, Kind.CHOICE: 0.9, Kind.EMAIL: 0.6, Kind.INTEGER: 0.1,
    Kind.BOOLEAN: 0.3, Kind.NAME: 0.2, Kind.REASON: 0.3,
}  # fmt: skip
"""How much a slot that was said speaks for its tool."""


def rank(
    forms: Sequence[ToolForm],
    heard: Heard,
    *,
    last_called: str | None = None,
    asked: tuple[str, str] | None = None,
) -> list[Intent]:
    """Every tool with its score, the likeliest first. `asked` is the (tool, slot) just asked for."""
    said = " ".join(heard.norms)
    for pattern, put in _PHRASES:
        said = pattern.sub(put, said)
    asked_outright = {_GROUP[stem(word)] for word in ("callback", "transfer") if word in said.split()}
    stems = list(dict.fromkeys(stem(word) for word in said.split() if word not in STOP_WORDS and len(word) > 1))
    weights = [_weights(form) for form in forms]
    intents: list[Intent] = []
    for form, own in zip(forms, weights, strict=True):
        names = _name_stems(form)
        groups: dict[int, float] = {}
        for word, weight in own.items():
            if word in _GROUP and word in names:
                groups[_GROUP[word]] = max(groups.get(_GROUP[word], 0.0), weight)
        score = 0.0
        hit: set[int] = set()
        for word in stems:
            sharing = sum(word in other for other in weights)
            direct = own.get(word, 0.0) / max(1.0, sharing**0.5)
            group = _GROUP.get(word, -1)
            kin = 0.0 if group in hit else 0.9 * groups.get(group, 0.0)
            if group >= 0 and (direct or kin):
                hit.add(group)
            score += max(direct, kin)
        slot_asked = asked[1] if asked is not None and asked[0] == form.name else None
        filled = fill(form.slots, heard, asked=slot_asked, tool_words=tool_words(form))
        for name, value in filled.items():
            slot = form.slot(name)
            if slot is not None and value.sure and (slot.kind is not Kind.CHOICE or score > 0 or value.used):
                score += SURE_SCORE if value.marked else _EVIDENCE.get(slot.kind, 0.0)
        ready = sum(slot.name in filled and filled[slot.name].sure for slot in form.required)
        score += 0.3 * max(0, ready - 1)
        if groups.keys() & asked_outright:
            score += OUTRIGHT_BONUS
        if form.name == last_called and ready:
            # A new value of what the tool needs repeats it ("and ORD-67890?"). A day alone does not: people say
            # "tomorrow" about anything.
            score += REPEATED_TOOL_BONUS
        intents.append(Intent(form, score, filled))
    return sorted(intents, key=lambda intent: -intent.score)
