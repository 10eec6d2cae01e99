"""The short way of whole text messages is wsproto's, byte for byte."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, Event, Message, Ping, TextMessage

from trio_voice.testing.frames import FrameCutter
from trio_voice.text_frames import text_frame

LENGTHS = (0, 1, 125, 126, 127, 65_535, 65_536, 70_000)

messages = st.one_of(
    st.builds(TextMessage, data=st.one_of(st.text(), st.sampled_from(LENGTHS).map(lambda length: "x" * length))),
    st.builds(BytesMessage, data=st.binary(max_size=300)),
    st.builds(Ping, payload=st.binary(max_size=20)),
)


def texts_of(server: Connection, pieces: Iterable[str | bytes]) -> list[str]:
    """What the server understands, and how it ends."""
    heard: list[str] = []
    parts: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            heard.append(piece)
            continue
        server.receive_data(piece)
        for event in server.events():
            if isinstance(event, Message):
                parts.append(event.data if isinstance(event.data, str) else bytes(event.data).decode("latin-1"))
                if event.message_finished:
                    heard.append("".join(parts))
                    parts.clear()
            else:
                heard.append(repr(event))
    return heard


def sent(events: Sequence[Event]) -> bytes:
    client = Connection(ConnectionType.CLIENT)
    return b"".join(client.send(event) for event in events)


def chunks(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def both(data: bytes, cuts: Sequence[int]) -> tuple[list[str], list[str]]:
    cutter = FrameCutter()
    short = [piece for chunk in chunks(data, cuts) for piece in cutter.cut(chunk)]
    plain = texts_of(Connection(ConnectionType.SERVER), chunks(data, cuts))
    return texts_of(Connection(ConnectionType.SERVER), short), plain


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 1 << 20), max_size=6))
def test_it_understands_what_wsproto_does_however_the_bytes_come(events: list[Event], cuts: list[int]) -> None:
    short, plain = both(sent(events), cuts)
    assert short == plain


def test_a_message_in_pieces_with_a_ping_in_between_stays_one() -> None:
    pieces = [TextMessage(data="one ", message_finished=False), Ping(), TextMessage(data="two"), TextMessage(data="x")]
    short, plain = both(sent(pieces), ())
    assert short == plain
    assert short[1:] == ["one two", "x"]


@pytest.mark.parametrize(
    "spoilt",
    [
        b"\xc1\x81abcdA",  # a reserved bit
        b"\x81\x01A",  # not masked
        b"\x81\xfe\x00\x01abcdA",  # a length longer than it need be said
        b"\x81\xff\x80" + bytes(15),  # no length at all
        b"\x81\x81abcd" + bytes([ord("a") ^ 0xFF]),  # no UTF-8
        sent([TextMessage(data="one", message_finished=False)]) + sent([TextMessage(data="two")]),
    ],
    ids=["reserved bit", "unmasked", "long length", "no length", "no UTF-8", "a message within another"],
)
def test_what_breaks_the_rules_is_left_to_wsproto(spoilt: bytes) -> None:
    short, plain = both(sent([TextMessage(data="fine")]) + spoilt, ())
    assert short == plain
    assert "CloseConnection" in short[-1]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_text_leaves_as_wsproto_would_send_it(length: int) -> None:
    text = ("\N{GREEK SMALL LETTER ALPHA}" + "x" * length)[:length]
    assert text_frame(text) == bytes(Connection(ConnectionType.SERVER).send(TextMessage(data=text)))
