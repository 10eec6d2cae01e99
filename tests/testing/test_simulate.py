"""The simulation finds what it is there to find: each rule of it is broken on purpose and must be missed."""

from __future__ import annotations

import contextlib
import io
import itertools
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from msgspec.structs import replace

from simulated import TALK as TALK, Patch, plan, planned, quiet as quiet, rules
from trio_voice import WireLost, conversation, downlink, liveness, supervisor, tools, uplink, wire
from trio_voice.channels import FromServer, offer
from trio_voice.connections import Connections
from trio_voice.outbox import Outbox
from trio_voice.playback_buffer import PlaybackBuffer
from trio_voice.protocol.server_events import ResponseCreated, SessionUpdated
from trio_voice.protocol.turns import ResponseArbiter
from trio_voice.testing import conversing, simulate
from trio_voice.testing.people import Action, Plan, PlannedFault, plan_of
from trio_voice.testing.spreading import spread
from trio_voice.tool_calls import ToolCalls
from trio_voice.tool_ledger import ToolLedger
from trio_voice.utterances import Utterances

TOOL_SEED = 8
"""Of a conversation in which the agent calls several tools."""


def test_whole_conversations_break_no_rule() -> None:
    tally = simulate.simulate(0.05, seed=5, minutes=0.6, say=lambda line: None)
    assert tally.rules == {}
    assert tally.conversations >= 2
    assert tally.faults.total() > 0
    assert tally.interruptions > 0


@pytest.mark.other_shapes("the beta, and servers that lack something")
@pytest.mark.parametrize("dialect", ["trio-voice-beta", "speaches", "hf-s2s"])
@pytest.mark.parametrize("seed", [3, 8])
def test_the_same_rules_hold_over_other_dialects(dialect: str, seed: int) -> None:
    held = attrs.evolve(plan_of(seed, 0.6, faults_per_minute=4), dialect=dialect)
    outcome = conversing.converse(held)
    assert outcome.violations == ()
    assert outcome.turns > 2


@pytest.mark.other_shapes("a server that lacks something")
def test_what_a_dialect_lacks_is_missed_when_it_is_sent_all_the_same(monkeypatch: Patch) -> None:
    monkeypatch.setattr(conversation, "Outbox", lambda *ends, dialect, **more: Outbox(*ends, **more))
    assert "accepted by the server" in rules(conversing.converse(plan(dialect="speaches")))


def test_without_bytes_the_same_rules_hold() -> None:
    assert rules(conversing.converse(plan(planned("reset", "responding")), wire="direct")) == set()


def test_without_bytes_a_broken_rule_is_found(monkeypatch: Patch) -> None:
    no_turn_floor(monkeypatch)
    assert "zero stale samples" in rules(conversing.converse(plan(), wire="direct"))


def test_a_seed_replays_to_the_sample() -> None:
    one, other = (conversing.converse(plan_of(11, 0.4)) for _ in range(2))
    assert attrs.evolve(one, wall_s=0) == attrs.evolve(other, wall_s=0)


def test_in_two_processes_it_is_the_same() -> None:
    one, two = (
        simulate.simulate(0.035, seed=5, minutes=0.15, wire="direct", say=lambda line: None, jobs=jobs)
        for jobs in (1, 2)
    )
    assert one.conversations >= 3
    assert attrs.asdict(attrs.evolve(one, wall_s=0)) == attrs.asdict(attrs.evolve(two, wall_s=0))


def test_nothing_is_left_of_the_processes_when_a_conversation_is_enough() -> None:
    before = multiprocessing.active_children()
    with contextlib.closing(spread(abs, itertools.count(-3), 2)) as results:
        assert list(itertools.islice(results, 5)) == [3, 2, 1, 0, 1]
    assert multiprocessing.active_children() == before


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_it_with_the_table_so_far(jobs: str) -> None:
    command = [sys.executable, "-m", "trio_voice.testing.simulate", "--hours", "1000", "--jobs", jobs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        assert "1000 virtual hours" in process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == simulate.INTERRUPTED
    assert "virtual hours" in said
    assert "interrupted" in said


# --- each rule, broken ----------------------------------------------------------------------------


def no_turn_floor(patch: Patch) -> None:
    patch.setattr(PlaybackBuffer, "interrupt", lambda self, turn: 0.0)
    patch.setattr(PlaybackBuffer, "retire", lambda self, turn: None)


def a_chunk_is_lost(patch: Patch) -> None:
    insert, count = PlaybackBuffer.insert, 0

    def losing(self: PlaybackBuffer, *chunk: Any) -> Any:
        nonlocal count
        count += 1
        return insert(self, *chunk) if count % 7 else None

    patch.setattr(PlaybackBuffer, "insert", losing)


def a_chunk_is_doubled(patch: Patch) -> None:
    insert = PlaybackBuffer.insert

    def doubling(self: PlaybackBuffer, *chunk: Any) -> Any:
        insert(self, *chunk)
        return insert(self, *chunk)

    patch.setattr(PlaybackBuffer, "insert", doubling)


def more_heard_than_sent(patch: Patch) -> None:
    positions = PlaybackBuffer.positions

    def exaggerating(self: PlaybackBuffer, unheard_samples: int = 0) -> Any:
        return tuple(
            replace(position, heard_ms=position.heard_ms * 9, received_ms=position.received_ms * 9)
            for position in positions(self, unheard_samples)
        )

    patch.setattr(PlaybackBuffer, "positions", exaggerating)


def tools_run_again(patch: Patch) -> None:
    patch.setattr(ToolLedger, "begin", lambda self, call_id: not self._results.update({call_id: None}))


def results_are_lost(patch: Patch) -> None:
    patch.setattr(ToolLedger, "finish", lambda self, call_id, output: False)


def nothing_is_restored(patch: Patch) -> None:
    patch.setattr(Connections, "_resume_conversation", lambda self: None)


def a_task_is_left(patch: Patch) -> None:
    run = downlink.run

    async def leaving(*arguments: Any, **more: Any) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep, 1e5)
        await run(*arguments, **more)

    patch.setattr(downlink, "run", leaving)


def closing_takes_long(patch: Patch) -> None:
    patch.setattr(wire, "CLOSE_TIMEOUT_S", 30.0)


def it_gives_up(patch: Patch) -> None:
    async def refuse(*arguments: Any) -> None:
        raise WireLost("no", retryable=False)

    patch.setattr(supervisor, "_reconnect", refuse)


def it_breaks(patch: Patch) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("broken")

    patch.setattr(Connections, "link_down", broken)


def the_microphone_waits_for_the_connection(patch: Patch) -> None:
    patch.setattr(uplink, "_drain", lambda frames: 0)


def an_old_connection_is_believed(patch: Patch) -> None:
    """Its last answer begins again on the next connection, as if it were one of that."""
    began: dict[int, FromServer] = {}

    def late(channel: Any, item: Any) -> None:
        offer(channel, item)
        if isinstance(item, FromServer) and isinstance(item.event, ResponseCreated):
            began[item.epoch] = item
        old = began.get(item.epoch - 1) if isinstance(item, FromServer) else None
        if old is not None and isinstance(item.event, SessionUpdated):
            offer(channel, replace(old, epoch=item.epoch, turn=(old.turn or 0) + 1))

    patch.setattr("trio_voice.downlink.offer", late)


def the_end_of_an_answer_is_cut(patch: Patch) -> None:
    end = PlaybackBuffer.end

    def cutting(self: PlaybackBuffer, turn: int) -> None:
        end(self, turn)
        self._chunks.clear()
        self._queued_samples = 0

    patch.setattr(PlaybackBuffer, "end", cutting)


def an_answer_is_awaited_for_ever(patch: Patch) -> None:
    patch.setattr(ResponseArbiter, "on_connection_lost", lambda self: None)


def a_probe_waits_for_nothing(patch: Patch) -> None:
    async def probe(*arguments: Any) -> None:
        began_at = trio.current_time()
        while trio.current_time() < began_at + 1:
            with trio.move_on_after(0):
                await trio.sleep_forever()
        raise WireLost("nobody there", retryable=True)

    patch.setattr(liveness, "_probe", probe)


def approval_is_asked_for_twice(patch: Patch) -> None:
    wanted = ToolCalls._approval_wanted
    patch.setattr(ToolCalls, "_approval_wanted", lambda self, news: (wanted(self, news), wanted(self, news)))


def nobody_is_asked(patch: Patch) -> None:
    patch.setattr(tools._Executor, "_needs_approval", lambda self, call: False)


def an_approval_is_lost(patch: Patch) -> None:
    decide = tools._Approval.decide
    patch.setattr(tools._Approval, "decide", lambda self, given, reason: decide(self, False, reason))


def nobody_is_admitted(patch: Patch) -> None:
    patch.setattr(tools._Line, "_admit", lambda self: None)


def nobody_looks_at_the_clock(patch: Patch) -> None:
    restart = tools._Call.restart_clock

    def late(self: tools._Call) -> None:
        restart(self)
        self.clock.deadline += 60

    patch.setattr(tools._Call, "restart_clock", late)


def the_later_result_is_told_twice(patch: Patch) -> None:
    tell = ToolCalls._tell_later
    patch.setattr(ToolCalls, "_tell_later", lambda self, result: (tell(self, result), tell(self, result))[1])


def the_later_result_is_not_told(patch: Patch) -> None:
    patch.setattr(ToolCalls, "_tell_later", lambda self, result: "result_1")


TOOLS_BROKEN: list[tuple[str, Callable[[Patch], None], str]] = [
    ("asked once", approval_is_asked_for_twice, "pay"),
    ("approved first", nobody_is_asked, "pay"),
    ("approved first", an_approval_is_lost, "pay"),
    ("every call is answered", nobody_is_admitted, "one_at_a_time"),
    ("answered in time", nobody_looks_at_the_clock, "hang"),
    ("result once", the_later_result_is_told_twice, "search_widely"),
    ("result once", the_later_result_is_not_told, "search_widely"),
]


@pytest.mark.parametrize("name", sorted({name for _, _, name in TOOLS_BROKEN}))
def test_the_rules_hold_for_each_tool(name: str) -> None:
    outcome = conversing.converse(plan(seed=TOOL_SEED, tools=(name,)))
    assert rules(outcome) == set()
    assert outcome.tools[name] >= 2


@pytest.mark.parametrize(
    ("rule", "break_it", "name"), TOOLS_BROKEN, ids=[f"{b[0]}: {b[1].__name__}" for b in TOOLS_BROKEN]
)
def test_a_broken_rule_of_tools_is_found(
    rule: str, break_it: Callable[[Patch], None], name: str, monkeypatch: Patch
) -> None:
    break_it(monkeypatch)
    assert rule in rules(conversing.converse(plan(seed=TOOL_SEED, tools=(name,))))


DUPLICATES = (planned("duplicates", "listening", 0.0),)
RESET = (planned("reset", "responding"), planned("reset", "listening", 7.0))

LISTENING = (planned("reset", "user speaking"), planned("drop", "listening", 7.0))

BREAKS: list[tuple[str, Callable[[Patch], None], tuple[PlannedFault, ...]]] = [
    ("zero stale samples", no_turn_floor, ()),
    ("in order, each once", a_chunk_is_lost, ()),
    ("in order, each once", a_chunk_is_doubled, ()),
    ("accepted by the server", more_heard_than_sent, ()),
    ("tool once", tools_run_again, DUPLICATES),
    ("result once", results_are_lost, ()),
    ("every text once", nothing_is_restored, RESET),
    ("nothing outlives its nursery", a_task_is_left, ()),
    ("bounded closing", closing_takes_long, (planned("never_answers_close", "closing"),)),
    ("ends with WireLost", it_gives_up, RESET),
    ("ends with WireLost", it_breaks, RESET),
    ("heard ≤ received", more_heard_than_sent, ()),
    ("nothing of an old epoch", an_old_connection_is_believed, RESET),
    ("every sample of a turn", the_end_of_an_answer_is_cut, ()),
    ("the conversation goes on", an_answer_is_awaited_for_ever, RESET),
    ("time goes on", a_probe_waits_for_nothing, (planned("half_open", "responding"),)),
]


def test_the_rules_hold_as_long_as_nothing_is_broken() -> None:
    for faults in {faults for _, _, faults in BREAKS}:
        assert rules(conversing.converse(plan(*faults))) == set()


@pytest.mark.parametrize(("rule", "break_it", "faults"), BREAKS, ids=[f"{b[0]}: {b[1].__name__}" for b in BREAKS])
def test_a_broken_rule_is_found(
    rule: str, break_it: Callable[[Patch], None], faults: tuple[PlannedFault, ...], monkeypatch: Patch
) -> None:
    break_it(monkeypatch)
    assert rule in rules(conversing.converse(plan(*faults)))


def test_sound_that_waited_for_the_connection_is_found(monkeypatch: Patch) -> None:
    """Where the microphone is open when the connection is lost."""
    assert rules(conversing.converse(plan(*LISTENING, push_to_talk=False))) == set()
    the_microphone_waits_for_the_connection(monkeypatch)
    assert "stale microphone" in rules(conversing.converse(plan(*LISTENING, push_to_talk=False)))


def test_an_utterance_that_was_lost_is_found(monkeypatch: Patch) -> None:
    lost = planned("reset", "processing", 0.0)
    spoken = plan(lost, push_to_talk=False, hear_ms=1500)
    assert rules(conversing.converse(spoken)) == set()
    monkeypatch.setattr(Utterances, "wordless", {})
    assert "every utterance" in rules(conversing.converse(spoken))


def test_a_collision_that_the_user_is_told_of_is_found(monkeypatch: Patch) -> None:
    eager = attrs.evolve(plan(), actions=(Action(0.5, "respond"), *[Action(0.05, "respond")] * 4))
    assert rules(conversing.converse(eager)) == set()
    monkeypatch.setattr(ResponseArbiter, "request", lambda self, event: event)
    monkeypatch.setattr("trio_voice.conversation.HARMLESS_ERRORS", ())
    assert "one response at a time" in rules(conversing.converse(eager))


def test_a_violation_is_told_made_smaller_and_ends_with_one(monkeypatch: Patch) -> None:
    a_chunk_is_doubled(monkeypatch)
    monkeypatch.setattr(simulate, "SHRINKING_RUNS", 3)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = simulate.main(["--only", "5", "--conversation-minutes", "0.1", "--coverage"])
    assert code == 1
    assert "in order, each once" in said.getvalue()
    assert "faults=()" in said.getvalue(), "none of them was needed"
    assert "| `half_open` |" in said.getvalue()


def test_shrinking_keeps_what_is_needed_and_nothing_else() -> None:
    needed = {Action(2.0, "speak", 0.5)}, {planned("reset", "responding")}

    def fails(smaller: Plan) -> bool:
        return needed[0] <= set(smaller.actions) and needed[1] <= set(smaller.faults)

    least = simulate.shrink(plan(*RESET, planned("drop", "closing"), latency_ms=150), fails)
    assert (set(least.actions), set(least.faults)) == needed
    assert least.latency_ms == 0


def test_no_process_outlives_one_that_was_killed() -> None:
    command = [sys.executable, "-m", "trio_voice.testing.simulate", "--hours", "1000", "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "virtual hours," not in (line := process.stdout.readline()):
            assert line, "it ended before it worked, and said so"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        alive = [os.pidfd_open(int(pid)) for pid in children]
        assert len(alive) >= 2
        process.kill()
        for descriptor in alive:
            ended, _, _ = select.select([descriptor], [], [], 20)
            os.close(descriptor)
            assert ended, "a worker is left"
