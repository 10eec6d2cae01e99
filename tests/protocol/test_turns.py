from __future__ import annotations

from hypothesis import given, strategies as st

from trio_voice.protocol import Response, ResponseConfig, ResponseCreate, server_events as on
from trio_voice.protocol.turns import REMEMBERED_TURNS, ResponseArbiter, TurnNumbers


def created(response_id: str) -> on.ResponseCreated:
    return on.ResponseCreated(response=Response(id=response_id))


def done(response_id: str) -> on.ResponseDone:
    return on.ResponseDone(response=Response(id=response_id))


def sound(response_id: str) -> on.ResponseOutputAudioDelta:
    return on.ResponseOutputAudioDelta(response_id=response_id, item_id="item", delta=b"")


@given(st.lists(st.integers(0, REMEMBERED_TURNS - 1), max_size=60))
def test_responses_are_numbered_in_the_order_of_their_first_event(named: list[int]) -> None:
    turns = TurnNumbers()
    order: list[int] = []
    for response in named:
        if response not in order:
            order.append(response)
        assert turns.turn_of(sound(f"resp {response}")) == order.index(response) + 1
        assert turns.last == len(order)


def test_all_events_of_a_response_are_of_its_turn_whichever_comes_first() -> None:
    turns = TurnNumbers()
    assert turns.turn_of(created("a")) == 1
    assert turns.turn_of(sound("b")) == 2, "a server may leave response.created out"
    assert turns.turn_of(created("b")) == 2
    assert turns.turn_of(sound("a")) == 1, "late sound stays with its own turn"
    assert turns.turn_of(done("b")) == 2
    assert turns.turn_of(done("a")) == 1


def test_events_that_belong_to_no_response_have_no_turn() -> None:
    turns = TurnNumbers()
    turns.turn_of(created("a"))
    assert turns.turn_of(on.InputAudioBufferSpeechStarted()) is None
    assert turns.turn_of(on.ConversationItemDeleted(item_id="item")) is None
    assert turns.turn_of(object()) is None


def test_sound_that_names_no_response_is_of_the_newest_one() -> None:
    turns = TurnNumbers()
    assert turns.turn_of(sound("")) is None
    turns.turn_of(created("a"))
    turns.turn_of(created("b"))
    assert turns.turn_of(sound("")) == 2


def test_an_id_used_again_on_a_new_connection_is_a_new_turn() -> None:
    turns = TurnNumbers()
    turns.turn_of(created("resp_001"))
    turns.turn_of(created("resp_002"))
    assert turns.turn_of(sound("resp_001"), epoch=2) == 3
    assert turns.turn_of(sound("resp_001"), epoch=1) == 1, "sound of the old connection is still of its own turn"
    assert turns.turn_of(sound("resp_002"), epoch=2) == 4
    assert turns.turn_of(sound(""), epoch=1) == 2
    assert turns.turn_of(sound(""), epoch=3) is None


def test_what_is_remembered_of_responses_is_bounded() -> None:
    turns = TurnNumbers()
    for number in range(10 * REMEMBERED_TURNS):
        assert turns.turn_of(created(f"resp {number}")) == number + 1
    assert len(turns._turns) <= REMEMBERED_TURNS


# --- one response at a time -----------------------------------------------------------------------


def plain() -> ResponseCreate:
    return ResponseCreate()


def particular(instructions: str) -> ResponseCreate:
    return ResponseCreate(response=ResponseConfig(instructions=instructions))


class FakeServer:
    """A server as the protocol has it: one response at a time, its events in the order in which it acts.

    What the client sends arrives when `serve` is called; what the server tells arrives when `hear` is.
    """

    def __init__(self) -> None:
        self.arbiter = ResponseArbiter()
        self.active: ResponseCreate | str | None = None
        self.sent: list[ResponseCreate] = []
        self.told: list[str] = []
        self.granted: list[ResponseCreate] = []
        self.outstanding = 0

    def send(self, event: ResponseCreate | None) -> None:
        if event is None:
            return
        self.outstanding += 1
        assert self.outstanding == 1, "two requests of ours are on their way"
        self.sent.append(event)

    def serve(self) -> None:
        if not self.sent:
            return
        event = self.sent.pop(0)
        if self.active is not None:
            self.told.append("collision")
        else:
            self.active = event
            self.granted.append(event)
            self.told.append("granted")

    def begin_own(self) -> None:
        if self.active is None:
            self.active = "its own"
            self.told.append("created")

    def finish(self) -> None:
        """A response takes longer than the way there and back: the protocol does not say whose response began."""
        while self.sent or "created" in self.told or "granted" in self.told:
            self.hear()
            self.serve()
        if self.active is not None:
            self.active = None
            self.told.append("done")

    def hear(self) -> None:
        if not self.told:
            return
        match self.told.pop(0):
            case "granted":
                self.outstanding -= 1
                self.arbiter.on_created()
            case "created":
                self.arbiter.on_created()
            case "collision":
                self.outstanding -= 1
                self.arbiter.on_collision()
            case "done":
                self.send(self.arbiter.on_done())

    def settle(self) -> None:
        """Let everything that is under way come to its end."""
        for _ in range(40):
            self.serve()
            while self.told:
                self.hear()
            self.finish()


STEPS = st.sampled_from(["plain", "particular", "serve", "begin_own", "finish", "hear", "hear"])


@given(st.lists(STEPS, max_size=30))
def test_every_request_is_answered_and_never_are_two_on_their_way(steps: list[str]) -> None:
    server = FakeServer()
    asked: list[str] = []
    for step in steps:
        match step:
            case "plain":
                server.send(server.arbiter.request(plain()))
            case "particular" if len(asked) < 8:
                asked.append(f"request {len(asked)}")
                server.send(server.arbiter.request(particular(asked[-1])))
            case "particular":
                pass
            case _:
                getattr(server, step)()
    granted_before = len(server.granted)
    server.settle()
    instructions = [event.response.instructions for event in server.granted if event.response]
    assert instructions == asked, "each was answered once, in the order of asking"
    plain_left = sum(not event.response for event in server.granted[granted_before:])
    assert plain_left <= 2, "those that waited became one, beside the one that was on its way"
    if "plain" in steps:
        assert any(not event.response for event in server.granted)


@given(st.lists(st.sampled_from(["request", "created", "done", "collision", "drop", "lost"]), max_size=40))
def test_events_in_an_order_no_server_has_do_no_harm(steps: list[str]) -> None:
    """At most one request is sent between two words of the server about it, whatever it says."""
    arbiter = ResponseArbiter()
    on_its_way = False
    for step in steps:
        match step:
            case "request":
                sent = arbiter.request(plain())
            case "created":
                sent, on_its_way = None, False
                arbiter.on_created()
            case "done":
                on_its_way = False
                sent = arbiter.on_done()
            case "collision":
                sent, on_its_way = None, False
                arbiter.on_collision()
            case "drop":
                sent = None
                arbiter.drop_waiting()
            case _:
                sent, on_its_way = None, False
                arbiter.on_connection_lost()
        if sent is not None:
            assert not on_its_way
            on_its_way = True


def test_several_that_wait_become_one() -> None:
    arbiter = ResponseArbiter()
    arbiter.on_created()
    for _ in range(3):
        assert arbiter.request(plain()) is None
    assert arbiter.on_done() == plain()
    arbiter.on_created()
    assert arbiter.on_done() is None


def test_a_refused_request_is_made_again_as_it_was() -> None:
    """The server's own response began first; its `response.created` comes before the refusal of ours."""
    arbiter = ResponseArbiter()
    assert arbiter.request(particular("say hello")) == particular("say hello")
    arbiter.on_created()
    arbiter.on_collision()
    assert arbiter.on_done() == particular("say hello")


def test_a_refusal_of_the_server_s_own_answer_is_not_about_ours() -> None:
    arbiter, ours = ResponseArbiter(), ResponseCreate(event_id="worded_1", response=ResponseConfig())
    arbiter.request(ours)
    assert arbiter.is_refused(None), "nothing has begun since"
    arbiter.on_created()
    assert arbiter.is_refused("worded_1"), "what began was the server's own"
    assert not arbiter.is_refused(None)
    assert not arbiter.is_refused("worded_7")
    arbiter.on_done()
    arbiter.request(plain())
    arbiter.on_created()
    assert arbiter.is_refused(None), "it bears no id; asking again answers both"


def test_a_refused_request_and_one_that_waits_become_one() -> None:
    arbiter = ResponseArbiter()
    arbiter.request(plain())
    arbiter.request(plain())
    arbiter.on_collision()
    assert arbiter.on_done() == plain()
    arbiter.on_created()
    assert arbiter.on_done() is None


def test_an_interruption_drops_what_was_going_to_be_said() -> None:
    arbiter = ResponseArbiter()
    arbiter.on_created()
    arbiter.request(particular("tell more"))
    arbiter.drop_waiting()
    assert arbiter.on_done() is None
    assert arbiter.request(plain()) == plain(), "and the next request is free to go"


def test_an_interruption_drops_a_request_that_is_then_refused() -> None:
    arbiter = ResponseArbiter()
    arbiter.request(plain())
    arbiter.drop_waiting()
    arbiter.on_collision()
    assert arbiter.on_done() is None


def test_nothing_is_carried_to_another_connection() -> None:
    arbiter = ResponseArbiter()
    arbiter.request(plain())
    arbiter.request(particular("stale"))
    arbiter.on_connection_lost()
    assert arbiter.on_done() is None
    assert arbiter.request(plain()) == plain()
