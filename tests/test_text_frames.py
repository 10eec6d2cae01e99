"""What passes wsproto by is what wsproto would have said, byte for byte and however the bytes come."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage

from trio_voice.text_frames import TextCutter, masked_text

LENGTHS = (0, 1, 2, 3, 125, 126, 127, 65_535, 65_536, 70_000)
HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\r\n"
LONGEST = 100_000

texts = st.one_of(st.text(), st.sampled_from(LENGTHS).map(lambda length: "x" * length))
messages = st.lists(
    st.one_of(
        st.tuples(st.builds(TextMessage, data=texts)),
        st.tuples(st.builds(TextMessage, data=texts)),
        st.tuples(st.builds(BytesMessage, data=st.binary(max_size=300))),
        st.tuples(
            st.builds(TextMessage, data=st.text(max_size=5), message_finished=st.just(False)),
            st.builds(Ping, payload=st.binary(max_size=20)),
            st.builds(TextMessage, data=st.text(max_size=5)),
        ),
        st.tuples(st.builds(Ping, payload=st.binary(max_size=20))),
        st.tuples(st.builds(Pong, payload=st.binary(max_size=20))),
    ),
    max_size=6,
).map(lambda groups: [event for group in groups for event in group])


def said(events: Sequence[Event]) -> bytes:
    server = Connection(ConnectionType.SERVER)
    return b"".join(server.send(event) for event in events)


def heard(client: Connection, data: bytes) -> list[str]:
    """What wsproto makes of it; pieces of a message in order, as one."""
    found: list[str] = []
    parts: list[str] = []
    client.receive_data(data)
    for event in client.events():
        if isinstance(event, Message):
            parts.append(event.data if isinstance(event.data, str) else bytes(event.data).decode("latin-1"))
            if event.message_finished:
                found.append("".join(parts))
                parts.clear()
        elif not isinstance(event, (Ping, Pong)):
            found.append(repr(event))
    return found


def chunks(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def cut(data: bytes, cuts: Sequence[int] = ()) -> tuple[list[str], bytes]:
    """All texts, and all that is left to the library, the head included."""
    cutter = TextCutter(LONGEST)
    texts: list[str] = []
    rest = b""
    for chunk in chunks(HEAD + data, cuts):
        more, for_library = cutter.cut(chunk)
        assert not (more and len(rest) > len(HEAD) and not all_control(rest[len(HEAD) :])), "order"
        texts += more
        rest += for_library
    assert cutter.head == HEAD
    return texts, rest


def all_control(frames: bytes) -> bool:
    position = 0
    while position < len(frames):
        if frames[position] not in (0x89, 0x8A):
            return False
        position += 2 + frames[position + 1]
    return True


@given(messages, st.lists(st.integers(0, 1 << 20), max_size=6))
def test_texts_first_then_the_librarys_are_what_wsproto_hears(events: list[Event], cuts: list[int]) -> None:
    texts, rest = cut(said(events), cuts)
    assert rest[: len(HEAD)] == HEAD
    plain = heard(Connection(ConnectionType.CLIENT), said(events))
    assert texts + heard(Connection(ConnectionType.CLIENT), rest[len(HEAD) :]) == plain


@given(st.lists(st.text(max_size=200), max_size=6), st.lists(st.integers(0, 1 << 20), max_size=9))
def test_whole_texts_never_reach_the_library(texts: list[str], cuts: list[int]) -> None:
    assert cut(said([TextMessage(data=text) for text in texts]), cuts) == (texts, HEAD)


def test_control_frames_go_to_the_library_and_texts_go_on() -> None:
    events = [TextMessage(data="one"), Ping(b"p"), TextMessage(data="two"), Pong(b"q"), TextMessage(data="three")]
    texts, rest = cut(said(events))
    assert texts == ["one", "two", "three"]
    assert rest == HEAD + said([Ping(b"p"), Pong(b"q")])


@pytest.mark.parametrize(
    "odd",
    [
        b"\xc1\x01A",  # a reserved bit
        b"\x81\x81abcdA",  # masked
        b"\x81\x7e\x00\x01A",  # a length longer than it need be said
        b"\x81\x7f" + bytes(6) + b"\xff\xff" + bytes(65_535),
        b"\x81\x7f\x80" + bytes(15),  # no length at all
        b"\x81\x01\xff",  # no UTF-8
        said([TextMessage(data="x" * (LONGEST + 1))]),
        said([CloseConnection(1001, "bye")]),
        said([BytesMessage(data=b"bytes")]),
        said([TextMessage(data="one", message_finished=False)]),
        b"\x89\x7e\x00\x80" + bytes(128),  # a long ping
    ],
    ids=[
        "reserved bit", "masked", "long length", "longer length", "no length", "no UTF-8", "too long", "close",
        "binary", "a piece", "a long ping",
    ],
)  # fmt: skip
def test_from_anything_odd_on_all_is_the_librarys(odd: bytes) -> None:
    fine = said([TextMessage(data="fine")])
    assert cut(fine + odd + fine, [len(HEAD) + 9]) == (["fine"], HEAD + odd + fine)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 401 No\r\n\r\nno key", b"220 smtp.test ESMTP\r\n", b"x" * 40_000])
def test_what_is_no_handshake_is_the_librarys(answer: bytes) -> None:
    cutter = TextCutter(LONGEST)
    assert b"".join(cutter.cut(chunk)[1] for chunk in chunks(answer, range(0, 40_000, 1000))) == answer
    assert cutter.head[:20] == answer[:20]


@given(st.one_of(st.binary(max_size=300), st.sampled_from(LENGTHS).map(bytes)), st.binary(min_size=4, max_size=4))
def test_a_text_leaves_as_wsproto_would_send_it(payload: bytes, key: bytes) -> None:
    payload = payload.decode("latin-1").encode()
    frame = masked_text(payload, key)
    server = Connection(ConnectionType.SERVER)
    server.receive_data(frame)
    (event,) = server.events()
    assert isinstance(event, TextMessage)
    assert (event.data.encode(), event.message_finished) == (payload, True)
    plain = Connection(ConnectionType.CLIENT).send(TextMessage(data=payload.decode()))
    assert len(frame) == len(plain)
    assert frame[: len(frame) - len(payload) - 4] == plain[: len(frame) - len(payload) - 4]
