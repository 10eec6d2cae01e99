"""Guardrails: functions that look at words and say whether they may stand.

Core ring: pure. A function gives nothing where the words may stand, and otherwise a reason, or a `Trip` that says more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

import attrs

from trio_voice.errors import ConfigError

if TYPE_CHECKING:
    from trio_voice.agent import RealtimeAgent

OnTrip: TypeAlias = Literal["refuse", "delete"]


def _one_of_the_two(name: str, say: str | None, instructions: str | None) -> None:
    if say is not None and instructions is not None:
        raise ConfigError(f"{name} has both say and instructions; only one can come in place of what was stopped")
    for option, text in (("say", say), ("instructions", instructions)):
        if text is not None and not text.strip():
            raise ConfigError(f"{name}: {option} is empty; give it words, or leave it out")


@attrs.frozen
class Trip:
    """Why words may not stand, and what is said in their place: `say`, word for word, or what the model makes of
    `instructions`. With neither it is what the guardrail was given.

    Raises: `ConfigError` for both at once.
    """

    reason: str = ""
    say: str | None = None
    instructions: str | None = None
    info: Any = None
    """Anything; the application finds it in `GuardrailTripped`."""

    def __attrs_post_init__(self) -> None:
        _one_of_the_two("a Trip", self.say, self.instructions)


@attrs.frozen
class GuardrailContext:
    """What a guardrail may know beside the words: a function with a second parameter is given one."""

    context: Any
    """The application's own object, as it was given to the session."""
    agent: RealtimeAgent
    """Whose words they are, or to whom they are said."""
    item_id: str
    turn: int | None
    """Of the response whose words they are; None for the user's."""
    final: bool
    """No more words of the item will come."""


@attrs.frozen(kw_only=True)
class Guardrail:
    """A function that looks at words. Plain ones run in a worker thread, so none can hold up the conversation."""

    function: Callable[..., Any] = attrs.field(repr=False)
    name: str
    say: str | None = None
    """Said in place of what was stopped, word for word."""
    instructions: str | None = None
    """What the model is told for the answer that comes in its place."""
    timeout_s: float = 10.0
    """A check that takes longer is given up, reported, and stops nothing."""

    def __attrs_post_init__(self) -> None:
        _one_of_the_two(f"guardrail {self.name!r}", self.say, self.instructions)
        if not self.timeout_s > 0:
            raise ConfigError(f"guardrail {self.name!r}: timeout_s={self.timeout_s} must be more than 0")
        if len(inspect.signature(self.function).parameters) not in (1, 2):
            raise ConfigError(f"guardrail {self.name!r} takes the text, and as a second parameter a GuardrailContext")

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def arguments(self, text: str, context: GuardrailContext) -> tuple[Any, ...]:
        return (text, context)[: len(inspect.signature(self.function).parameters)]

    def judged(self, returned: object) -> Trip | None:
        """What the function's answer means; what is said in place is filled in.

        Raises: `TypeError` for an answer that means nothing.
        """
        if returned is None or returned is False or returned == "":
            return None
        match returned:
            case True:
                trip = Trip()
            case str():
                trip = Trip(returned)
            case Trip():
                trip = returned
            case _:
                raise TypeError(f"it returned {returned!r}; None, False, True, a reason or a Trip is expected")
        if trip.say is None and trip.instructions is None:
            trip = attrs.evolve(trip, say=self.say, instructions=self.instructions)
        return trip


@attrs.frozen(kw_only=True)
class OutputGuardrail(Guardrail):
    """Looks at the agent's words while they come."""

    every_chars: int = 100
    """How many new characters make it look again; and once more when the words are complete."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.every_chars < 1:
            raise ConfigError(f"guardrail {self.name!r}: every_chars={self.every_chars} must be 1 or more")


@attrs.frozen(kw_only=True)
class InputGuardrail(Guardrail):
    """Looks at the user's words: spoken ones when they are written down, written ones before they are sent."""

    on_trip: OnTrip = "refuse"
    """What becomes of spoken words that may not stand: the model keeps them (`refuse`), or forgets them (`delete`).
    Written ones it never sees."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.on_trip not in ("refuse", "delete"):
            raise ConfigError(f"guardrail {self.name!r}: on_trip={self.on_trip!r} is neither 'refuse' nor 'delete'")


Check: TypeAlias = Callable[..., Any]
"""From the text, or the text and a `GuardrailContext`, to None, False, True, a reason, or a `Trip`; plain or async."""


@overload
def output_guardrail(function: Check, /) -> OutputGuardrail: ...


@overload
def output_guardrail(
    *,
    name: str | None = None,
    say: str | None = None,
    instructions: str | None = None,
    every_chars: int = 100,
    timeout_s: float = 10.0,
) -> Callable[[Check], OutputGuardrail]: ...


def output_guardrail(
    function: Check | None = None,
    /,
    *,
    name: str | None = None,
    say: str | None = None,
    instructions: str | None = None,
    every_chars: int = 100,
    timeout_s: float = 10.0,
) -> OutputGuardrail | Callable[[Check], OutputGuardrail]:
    """Have a function look at what the agent says. Where it finds something, the agent falls silent, and says
    something else. The arguments are those of `OutputGuardrail`.

    Raises: `ConfigError` for what cannot be.
    """

    def make(function: Check) -> OutputGuardrail:
        return OutputGuardrail(
            function=function,
            name=name or _name_of(function),
            say=say,
            instructions=instructions,
            every_chars=every_chars,
            timeout_s=timeout_s,
        )

    return make if function is None else make(function)


@overload
def input_guardrail(function: Check, /) -> InputGuardrail: ...


@overload
def input_guardrail(
    *,
    name: str | None = None,
    say: str | None = None,
    instructions: str | None = None,
    on_trip: OnTrip = "refuse",
    timeout_s: float = 10.0,
) -> Callable[[Check], InputGuardrail]: ...


def input_guardrail(
    function: Check | None = None,
    /,
    *,
    name: str | None = None,
    say: str | None = None,
    instructions: str | None = None,
    on_trip: OnTrip = "refuse",
    timeout_s: float = 10.0,
) -> InputGuardrail | Callable[[Check], InputGuardrail]:
    """Have a function look at what the user says. Where it finds something, the answer to it is stopped, and the agent
    says something else. The arguments are those of `InputGuardrail`.

    Raises: `ConfigError` for what cannot be.
    """

    def make(function: Check) -> InputGuardrail:
        return InputGuardrail(
            function=function,
            name=name or _name_of(function),
            say=say,
            instructions=instructions,
            on_trip=on_trip,
            timeout_s=timeout_s,
        )

    return make if function is None else make(function)


def _name_of(function: Check) -> str:
    found = getattr(function, "__name__", "guardrail")
    return "guardrail" if found == "<lambda>" else str(found)


G = TypeVar("G", bound=Guardrail)


def as_guardrails(given: Iterable[G | Check], kind: type[G], make: Callable[[Check], G]) -> tuple[G, ...]:
    """What an agent was given: plain functions made guardrails.

    Raises: `ConfigError` for one of the other kind, and for two of one name.
    """
    found: list[G] = []
    for one in given:
        if isinstance(one, Guardrail) and not isinstance(one, kind):
            raise ConfigError(f"{one.name!r} is no {kind.__name__}; the two kinds have lists of their own")
        found.append(one if isinstance(one, kind) else make(one))  # type: ignore[arg-type]  # not a Guardrail
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two guardrails are named {name!r}; give one of them another name=")
    return tuple(found)
