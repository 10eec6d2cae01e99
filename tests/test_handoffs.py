"""Handoffs in a session: the new agent is in charge exactly once, or the old one, whatever happens meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import pytest
import trio
from trio.testing import MockClock

from kit import Call as OnCall, Peer, call, call_peer
from test_session_peer import created, done
from trio_voice import ConfigError, RealtimeAgent, ToolContext, events, handoff, tool
from trio_voice.protocol.history import HistoryItem
from trio_voice.server.brain import ResponseRequest
from trio_voice.server.scripted import Call, Say, ScriptedBrain, Step, Wait

BILLING = RealtimeAgent("Billing", "Talk about bills.")
DESK = RealtimeAgent("Desk", "Find out what it is about.", handoffs=[BILLING])
TRANSFER = Call("transfer_to_billing")


def heads(brain: ScriptedBrain) -> list[str]:
    """Who answered, by the first word of the instructions of each request."""
    return [request.instructions.split()[0] for request in brain.requests]


def outputs(request: ResponseRequest) -> list[str]:
    return [item.output or "" for item in request.items if item.type == "function_call_output"]


def sent(on: OnCall) -> list[str]:
    """What went to the server since the last look, but for sound."""
    found = [event.event for event in on.events._queue if isinstance(event, events.ClientEventSent)]
    return [type(event).__name__ for event in found]


async def settle(on: OnCall, seconds: float = 10) -> None:
    await trio.sleep(seconds)
    assert on.errors() == []


# --- the plain case -------------------------------------------------------------------------------


async def test_the_model_hands_over_and_the_new_agent_answers(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[Say("One moment."), TRANSFER], Say("Billing here.", 500)], ["My bill is wrong."])
    async with call(brain, DESK, protocol=True) as on:
        await on.speak()
        happened = await on.next(events.HandoffOccurred)
        assert (happened.from_agent, happened.to_agent) == ("Desk", "Billing")
        assert on.session.agent is BILLING
        await settle(on)
        order = sent(on)
        assert order == ["ConversationItemCreate", "ResponseCreate"], "after it: the output, then one response"
        assert [line.text for line in on.session.transcript()] == ["My bill is wrong.", "One moment.", "Billing here."]
        (use,) = [use for turn in on.session.turns() for use in turn.tool_calls]
        assert (use.tool, use.failed) == ("transfer_to_billing", False)
    assert heads(brain) == ["Find", "Talk"]
    assert [offered.name for offered in brain.requests[0].tools] == ["transfer_to_billing"]
    assert [offered.name for offered in brain.requests[1].tools] == []
    assert json.loads(outputs(brain.requests[1])[0]) == {"assistant": "Billing"}


async def test_the_settings_come_first_with_both_formats(autojump_clock: MockClock) -> None:
    seen: list[Peer] = []

    async def serve(peer: Peer) -> None:
        seen.append(peer)
        await peer.configure()
        await peer.send(created("r1"), _call_done("r1", "call_1", "transfer_to_billing"), done("r1"))
        update = await peer.receive("session.update")
        assert [event["type"] for event in peer.received[1:]] == ["session.update"], "and nothing before the answer"
        await trio.sleep(5)
        await peer.send({"type": "session.updated", "session": update["session"]})
        await peer.drain()

    async with call_peer(serve, DESK) as on:
        await trio.sleep(4)
        assert on.session.agent is DESK, "until the server has taken it"
        await on.next(events.HandoffOccurred)
        await trio.sleep(1)
    types = seen[0].types()
    assert types[1:] == ["session.update", "conversation.item.create", "response.create"]
    audio = seen[0].received[1]["session"]["audio"]
    assert audio["input"]["format"] == audio["output"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert seen[0].received[1]["session"]["tools"] == []


def _call_done(response_id: str, call_id: str, name: str, arguments: str = "{}") -> dict[str, Any]:
    item = {"type": "function_call", "id": f"item_{call_id}", "status": "completed", "call_id": call_id}
    item |= {"name": name, "arguments": arguments}
    return {"type": "response.output_item.done", "response_id": response_id, "output_index": 0, "item": item}


async def test_a_refusal_leaves_the_old_agent_and_tells_the_model(autojump_clock: MockClock) -> None:
    seen: list[Peer] = []

    async def serve(peer: Peer) -> None:
        seen.append(peer)
        await peer.configure()
        await peer.send(created("r1"), _call_done("r1", "call_1", "transfer_to_billing"), done("r1"))
        update = await peer.receive("session.update")
        error = {"type": "invalid_request_error", "message": "No such tool.", "event_id": update["event_id"]}
        await peer.send({"type": "error", "event_id": "e1", "error": error})
        await peer.drain()

    async with call_peer(serve, DESK) as on:
        result = await on.next(events.ToolFinished)
        assert result.failed
        assert "No such tool." in result.output
        await trio.sleep(1)
        assert on.session.agent is DESK
    assert seen[0].types()[1:] == ["session.update", "conversation.item.create", "response.create"]


async def test_round_and_round(autojump_clock: MockClock) -> None:
    """Two agents that name each other."""
    desk = RealtimeAgent("Desk", "Find out.", handoffs=[handoff(lambda: billing, tool_name="to_billing")])
    billing = RealtimeAgent("Billing", "Talk.", handoffs=[handoff(lambda: desk, tool_name="to_desk")])
    brain = ScriptedBrain([Call("to_billing"), Call("to_desk"), Call("to_billing"), Say("Here I am.", 500)])
    async with call(brain, desk, listening=False) as on:
        await on.session.send_text("Hello.")
        for to in ("Billing", "Desk", "Billing"):
            assert (await on.next(events.HandoffOccurred)).to_agent == to
        await settle(on)
    assert heads(brain) == ["Find", "Talk.", "Find", "Talk."]
    assert len(outputs(brain.requests[3])) == 3


# --- what goes with it ----------------------------------------------------------------------------


@dataclass
class Reason:
    reason: str
    urgent: bool = False


@pytest.mark.parametrize(
    ("input_type", "arguments", "given"),
    [
        (Reason, '{"reason": "a bill"}', Reason("a bill")),
        (Literal["bill", "refund"], '{"input": "refund"}', "refund"),
        (list[int], '{"input": [1, 2]}', [1, 2]),
    ],
    ids=["dataclass", "literal", "list"],
)
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_the_input_is_checked_and_given(input_type: Any, arguments: str, given: Any, is_async: bool) -> None:
    told: list[Any] = []

    def plain(context: ToolContext[list[str]], value: Any) -> None:
        told.append((context.context, context.agent, value))

    async def waits(context: ToolContext[list[str]], value: Any) -> None:
        await trio.lowlevel.checkpoint()
        plain(context, value)

    to_billing = handoff(BILLING, input_type=input_type, on_handoff=waits if is_async else plain)
    desk = RealtimeAgent("Desk", "Find out.", handoffs=[to_billing])
    brain = ScriptedBrain(
        [
            Call("transfer_to_billing", '{"reason": 7, "input": 7}'),
            Call("transfer_to_billing", arguments),
            Say("Here.", 50),
        ]
    )
    async with call(brain, desk, listening=False, context=["mine"]) as on:
        await on.session.send_text("Hello.")
        assert "do not fit" in (await on.next(events.ToolFinished)).output
        await on.next(events.HandoffOccurred)
        await on.next(events.ResponseEnd)
    assert told == [(["mine"], desk, given)]
    assert brain.requests[0].tools[0].parameters == to_billing.parameters


async def test_a_callback_that_raises_leaves_the_old_agent(autojump_clock: MockClock) -> None:
    async def refuse(context: ToolContext[Any]) -> None:
        raise RuntimeError("billing is closed")

    desk = RealtimeAgent("Desk", "Find out.", handoffs=[handoff(BILLING, on_handoff=refuse)])
    brain = ScriptedBrain([TRANSFER, Say("They are closed.", 500)])
    async with call(brain, desk, listening=False) as on:
        await on.session.send_text("Hello.")
        assert "billing is closed" in (await on.next(events.ToolFinished)).output
        await settle(on)
        assert on.session.agent is desk
    assert heads(brain) == ["Find", "Find"]


async def test_the_new_agent_sees_what_the_filter_lets_through(autojump_clock: MockClock) -> None:
    shown: list[HistoryItem] = []

    def no_secrets(items: Sequence[HistoryItem]) -> Iterable[HistoryItem]:
        shown.extend(items)
        return [item for item in items if "secret" not in item.text + item.output]

    @tool
    async def look_up() -> str:
        """Look something up."""
        return "a secret"

    desk = RealtimeAgent("Desk", "Find out.", [look_up], handoffs=[handoff(BILLING, input_filter=no_secrets)])
    brain = ScriptedBrain([Call("look_up"), Say("Yes.", 300), TRANSFER, Say("Here.", 300), Say("And here.", 300)])
    async with call(brain, desk, listening=False) as on:
        await on.session.send_text("A secret: swordfish.")
        await on.next(events.PlaybackEnd)
        await on.session.send_text("My bill, please.")
        await on.next(events.PlaybackEnd)
        await on.drop()
        await on.next(events.Connected)
        await on.session.send_text("Anything more?")
        await on.next(events.PlaybackEnd)
        words = [line.text for line in on.session.transcript()]
        assert words == ["A secret: swordfish.", "Yes.", "My bill, please.", "Here.", "Anything more?", "And here."]
        assert on.errors() == []
    assert [item.kind for item in shown].count("function_call") == 1, "that of the handoff is not asked about"
    for request in brain.requests[3:]:
        kinds = [item.type for item in request.items]
        assert (kinds.count("function_call"), kinds.count("function_call_output")) == (1, 1)
        assert not any("secret" in item.text for item in request.items), "on the next connection neither"


async def test_what_the_server_was_not_told_again_it_need_not_forget(autojump_clock: MockClock) -> None:
    """An answer of which no word was heard is not restored; the server knows nothing of it when a filter drops it."""
    desk = RealtimeAgent("Desk", "Find out.", handoffs=[handoff(BILLING, input_filter=lambda items: items[-1:])])
    brain = ScriptedBrain([Say("Unfortunately.", 5000), TRANSFER, Say("Here.", 300)])
    async with call(brain, desk, listening=False) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(1)
        await on.session.interrupt()
        assert [line.heard_text for line in on.session.history] == [""]
        await on.drop()
        await on.next(events.Connected)
        await on.session.send_text("My bill, please.")
        await on.next(events.HandoffOccurred)
        await settle(on)


async def test_words_that_are_still_played_stay_until_it_is_known_what_was_heard(autojump_clock: MockClock) -> None:
    """Also those of the answer before the one that is being made."""
    desk = RealtimeAgent("Desk", "Find out.", handoffs=[handoff(BILLING, input_filter=lambda items: ())])
    brain = ScriptedBrain([Say("One two three four.", 4000), [TRANSFER, Say("Five six.", 4000)], Say("Here.", 300)])
    async with call(brain, desk, listening=False) as on:
        await on.session.respond()
        await on.next(events.ResponseEnd)
        await on.session.respond()
        await on.next(events.HandoffOccurred)
        await on.session.interrupt()
        await settle(on)


async def test_a_filter_that_raises_leaves_the_old_agent(autojump_clock: MockClock) -> None:
    def broken(items: Sequence[HistoryItem]) -> Iterable[HistoryItem]:
        raise RuntimeError("out of order")

    desk = RealtimeAgent("Desk", "Find out.", handoffs=[handoff(BILLING, input_filter=broken)])
    brain = ScriptedBrain([TRANSFER, Say("Hm.", 300)])
    async with call(brain, desk, listening=False) as on:
        await on.session.send_text("Hello.")
        assert "out of order" in (await on.next(events.ToolFinished)).output
        await settle(on)
        assert on.session.agent is desk


# --- beside other calls ---------------------------------------------------------------------------


async def test_of_two_handoffs_the_first_wins(autojump_clock: MockClock) -> None:
    sales = RealtimeAgent("Sales", "Sell.")
    desk = RealtimeAgent("Desk", "Find out.", handoffs=[BILLING, sales])
    brain = ScriptedBrain([[TRANSFER, Call("transfer_to_sales")], Say("Billing here.", 500)])
    async with call(brain, desk, listening=False) as on:
        await on.session.send_text("Hello.")
        await on.next(events.HandoffOccurred)
        await settle(on)
        assert on.session.agent is BILLING
        uses = [use for turn in on.session.turns() for use in turn.tool_calls]
        assert {use.tool: use.failed for use in uses} == {"transfer_to_billing": False, "transfer_to_sales": True}
    assert heads(brain) == ["Find", "Talk"]
    assert len(outputs(brain.requests[1])) == 2


@pytest.mark.parametrize("wait_ms", [0, 300], ids=["at-once", "after-the-switch"])
async def test_other_calls_of_the_old_agent_deliver_their_results_once(wait_ms: int, autojump_clock: MockClock) -> None:
    runs = []

    @tool
    async def look_up() -> str:
        """Look something up."""
        runs.append(trio.current_time())
        await trio.sleep(3)
        return "found"

    desk = RealtimeAgent("Desk", "Find out.", [look_up], handoffs=[BILLING])
    brain = ScriptedBrain(
        [
            [Call("look_up"), TRANSFER, Wait(wait_ms), Call("look_up")],
            Say("Billing here.", 500),
            Call("look_up"),
            Say("No.", 50),
        ]
    )
    async with call(brain, desk, listening=False) as on:
        await on.session.send_text("Hello.")
        await on.next(events.HandoffOccurred)
        await settle(on)
        assert len(runs) == 2
        await on.session.send_text("Look it up again.")
        await settle(on)
        assert len(runs) == 2, "the new agent has no such tool"
    assert heads(brain) == ["Find", "Talk", "Talk", "Talk"]
    assert sorted(outputs(brain.requests[1]))[:2] == ["found", "found"]
    assert len(outputs(brain.requests[1])) == 3
    assert "no tool 'look_up'" in outputs(brain.requests[3])[-1]


async def test_a_handoff_called_after_the_switch_is_refused(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([[TRANSFER, Wait(500), TRANSFER], Say("Billing here.", 500)])
    async with call(brain, DESK, listening=False) as on:
        await on.session.send_text("Hello.")
        await settle(on)
        assert on.session.agent is BILLING
    assert len(outputs(brain.requests[1])) == 2
    assert "handed over before this call" in outputs(brain.requests[1])[1]


async def test_the_application_hands_over(autojump_clock: MockClock) -> None:
    brain = ScriptedBrain([Say("Billing here.", 500)])
    async with call(brain, DESK, listening=False) as on:
        await on.session.update_agent(BILLING)
        happened = await on.next(events.HandoffOccurred)
        assert (happened.from_agent, happened.to_agent, happened.call_id) == ("Desk", "Billing", None)
        await on.session.send_text("Hello.")
        await on.next(events.ResponseEnd)
    assert heads(brain) == ["Talk"]


async def test_the_application_may_be_quicker_than_the_model(autojump_clock: MockClock) -> None:
    sales = RealtimeAgent("Sales", "Sell.")

    async def think(context: ToolContext[Any]) -> None:
        await trio.sleep(1)

    desk = RealtimeAgent("Desk", "Find out.", handoffs=[handoff(BILLING, on_handoff=think)])
    brain = ScriptedBrain([TRANSFER, Say("Billing here.", 500)])
    async with call(brain, desk, listening=False) as on:
        await on.session.send_text("Hello.")
        await on.next(events.ToolCalled)
        await on.session.update_agent(sales)
        first, second = [await on.next(events.HandoffOccurred) for _ in range(2)]
        assert (first.to_agent, first.call_id) == ("Sales", None)
        assert (second.from_agent, second.to_agent) == ("Sales", "Billing")
        assert second.call_id is not None
        await settle(on)
    assert heads(brain) == ["Find", "Talk"]


# --- interrupted, and cut off ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["speech", "text", "interrupt"])
@pytest.mark.parametrize("after_ms", [0, 900, 1200, 1500])
async def test_an_interruption_leaves_one_agent_in_charge(how: str, after_ms: int, autojump_clock: MockClock) -> None:
    """The call comes one second after the answer began; the callback takes half a second."""

    async def think(context: ToolContext[Any]) -> None:
        await trio.sleep(0.5)

    desk = RealtimeAgent("Desk", "Find out.", handoffs=[handoff(BILLING, on_handoff=think)])

    first: list[Step] = [Say("One moment, I will connect you.", 4000), Wait(1000), TRANSFER]
    brain = ScriptedBrain([first, *[Say("Yes.", 500)] * 5])
    async with call(brain, desk) as on:
        await on.session.respond()
        await on.next(events.PlaybackStart)
        await trio.sleep(after_ms / 1000)
        match how:
            case "speech":
                await on.speak()
            case "text":
                await on.session.send_text("Wait.")
            case "interrupt":
                await on.session.interrupt()
        await settle(on, 15)
        agent = on.session.agent
        await on.session.send_text("Who are you?")
        await settle(on)
        assert on.session.agent is agent
    last = brain.requests[-1]
    assert last.instructions == ("Talk about bills." if agent is BILLING else "Find out.")
    handed_over = [output for output in outputs(last) if "assistant" in output]
    assert len(handed_over) == (1 if agent is BILLING else 0)
    calls = [item.call_id for item in last.items if item.type == "function_call"]
    assert len(outputs(last)) == len(calls) == len(set(calls))


STEPS = ["SessionUpdate", "ConversationItemCreate", "ResponseCreate"]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("outage_s", [0, 3])
async def test_a_dropped_socket_at_each_step_leaves_one_agent_in_charge(
    step: str, before: bool, outage_s: float, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`before`: what is sent in this step does not arrive; otherwise the server has it, and its answer does not."""
    from trio_voice import uplink
    from trio_voice.protocol import ClientEvent

    armed = True
    brain = ScriptedBrain([TRANSFER, *[Say("Billing here.", 500)] * 3])
    async with call(brain, DESK, listening=False, protocol=True) as on:
        real = uplink._Line.send

        async def send(line: Any, event: ClientEvent) -> None:
            nonlocal armed
            called = any(entry.kind == "function_call" for entry in on.session._view.history)
            if armed and called and type(event).__name__ == step:
                armed = False
                if not before:
                    await real(line, event)
                await on.drop()
            await real(line, event)

        monkeypatch.setattr(uplink._Line, "send", send)
        await on.session.send_text("Hello.")
        await settle(on, 30)
        assert not armed
        assert on.session.agent is BILLING
        happened = [event for event in on.events._queue if isinstance(event, events.HandoffOccurred)]
        assert len(happened) == 1
        await on.session.send_text("Who are you?")
        await settle(on)
        assert len([use for turn in on.session.turns() for use in turn.tool_calls]) == 1
    assert heads(brain)[0] == "Find"
    assert set(heads(brain)[1:]) == {"Talk"}
    assert len([output for output in outputs(brain.requests[-1]) if "assistant" in output]) == 1


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RealtimeAgent(handoffs=[BILLING, BILLING]), "two tools named 'transfer_to_billing'.*tool_name="),
        (
            lambda: RealtimeAgent(tools=[tool(name="transfer_to_billing")(lambda: None)], handoffs=[BILLING]),
            "two tools",
        ),
        (lambda: handoff(lambda: BILLING), "needs a tool_name="),
        (lambda: handoff(BILLING, tool_name="to billing"), "'to billing'"),
        (lambda: handoff(BILLING, on_handoff=lambda: None), "called with the ToolContext, but takes 0"),
        (lambda: handoff(BILLING, input_type=int, on_handoff=lambda context: None), "and the input, but takes 1"),
        (lambda: handoff(BILLING, input_type=complex), "cannot be put into JSON"),
        (lambda: RealtimeAgent(handoffs=[cast(Any, 7)]), "not to 7"),
    ],
    ids=["twice", "clash", "no-name", "bad-name", "no-context", "no-input", "no-json", "no-agent"],
)
def test_what_cannot_be_says_why(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_names_are_made_fit() -> None:
    assert handoff(RealtimeAgent("Accounts & Bills (EU)")).name == "transfer_to_accounts_bills_eu"
