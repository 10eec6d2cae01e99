"""WebSocket frames of the messages that are nearly all there are: whole ones of text.

Core ring: pure. Between the bytes of a connection and wsproto, which takes ten times as long for them. The invariant:
everything else is left to wsproto, byte for byte: pieces of messages, control frames, and whatever breaks the rules of
RFC 6455.
"""

from __future__ import annotations

import functools

from msgspec import Struct, field

WHOLE_TEXT = 0x81
"""The first byte of a frame that is a whole message of text, without extensions."""
PING, PONG = 0x89, 0x8A
MASKED = 0x80
LONGEST_SHORT = 125
TWO_BYTES, EIGHT_BYTES = 126, 127
"""What stands for a length that follows in so many bytes."""
KEY_BYTES = 4
MOST_CACHED_WORDS = 4096
HEAD_END = b"\r\n\r\n"
LONGEST_HEAD = 16_384
"""Of the server's answer to the handshake; what is longer is left to the library."""


def masked_text(payload: bytes, key: bytes) -> bytes:
    """The frame of a whole message from a client. `key`: four bytes that nobody can foresee, as RFC 6455 asks."""
    length = len(payload)
    words = -(-length // KEY_BYTES)
    keys = (_ones if words <= MOST_CACHED_WORDS else _ones.__wrapped__)(words) * int.from_bytes(key, "little")
    # One number: numpy is a microsecond quicker for 1.3 kB, and takes 100 ms to import; a session in writing has none.
    masked = (int.from_bytes(payload, "little") ^ keys).to_bytes(words * KEY_BYTES, "little")
    return b"".join((_head(length, MASKED), key, masked if len(masked) == length else masked[:length]))


@functools.lru_cache(maxsize=32)
def _ones(words: int) -> int:
    """What repeats a key so many times when it is multiplied by it. Frames of sound have one length."""
    return int.from_bytes(b"\1\0\0\0" * words, "little")


def text_frame(text: str) -> bytes:
    """The frame of a whole message from a server, which masks nothing."""
    payload = text.encode()
    return _head(len(payload), 0) + payload


def _head(length: int, masked: int) -> bytes:
    if length <= LONGEST_SHORT:
        return bytes((WHOLE_TEXT, masked | length))
    if length < 1 << 16:
        return bytes((WHOLE_TEXT, masked | TWO_BYTES)) + length.to_bytes(2)
    return bytes((WHOLE_TEXT, masked | EIGHT_BYTES)) + length.to_bytes(8)


class TextCutter(Struct, eq=False):
    """Cuts what a server sends, from the handshake on, into whole texts and what is the library's.

    The library gets the answer to the handshake, pings and pongs; and from the first frame on that is anything else
    (a piece of a message, a Close, a mistake) all of what follows, so that the order of messages stays.
    """

    max_text_bytes: int
    """Longer texts are the library's, which refuses them."""
    head: bytes = b""
    """The beginning of the answer to the handshake: a peer that refuses it and hangs up has said why."""
    is_over: bool = False
    """Everything from here on is the library's."""
    _in_head: bool = True
    _kept: bytearray = field(default_factory=bytearray)
    _wanted_bytes: int = 0
    """Until the frame that `_kept` begins with is whole."""

    def cut(self, received: bytes) -> tuple[list[str], bytes]:
        """What is complete with `received`: texts, and bytes for the library."""
        if self._in_head:
            return self._cut_head(received)
        if self.is_over:
            return [], received
        if not self._kept:
            return self._cut_frames(received)
        self._kept += received
        if len(self._kept) < self._wanted_bytes:
            return [], b""
        together = bytes(self._kept)
        self._kept.clear()
        return self._cut_frames(together)

    def _cut_head(self, received: bytes) -> tuple[list[str], bytes]:
        before = len(self.head)
        self.head += received
        end = self.head.find(HEAD_END, max(0, before - len(HEAD_END)))
        if end < 0:
            if len(self.head) > LONGEST_HEAD:
                self._in_head, self.is_over = False, True
            return [], received
        self._in_head = False
        if b" 101 " not in self.head[:16]:
            self.is_over = True
            return [], received
        of_head = end + len(HEAD_END) - before
        self.head = self.head[: before + of_head]
        texts, rest = self._cut_frames(received[of_head:])
        return texts, received[:of_head] + rest

    def _cut_frames(self, received: bytes) -> tuple[list[str], bytes]:
        texts: list[str] = []
        rest: list[bytes] = []
        position, ends = 0, len(received)
        while position < ends:
            if ends < position + 2:
                self._keep(received[position:], 2)
                break
            first, length = received[position], received[position + 1]
            begin = position + 2
            if first == WHOLE_TEXT:
                if length >= TWO_BYTES:
                    begin += 2 if length == TWO_BYTES else 8
                    if ends < begin and length <= EIGHT_BYTES:
                        self._keep(received[position:], begin - position)
                        break
                    said, length = length, int.from_bytes(received[position + 2 : begin])
                    # Masked, or a length that is longer than it need be said: against the rules.
                    if said > EIGHT_BYTES or length <= (LONGEST_SHORT if said == TWO_BYTES else 0xFFFF):
                        return self._leave(texts, rest, received[position:])
                if length > self.max_text_bytes:
                    return self._leave(texts, rest, received[position:])
            elif (first != PING and first != PONG) or length > LONGEST_SHORT:
                return self._leave(texts, rest, received[position:])
            end = begin + length
            if ends < end:
                self._keep(received[position:], end - position)
                break
            if first == WHOLE_TEXT:
                try:
                    texts.append(received[begin:end].decode())
                except UnicodeDecodeError:
                    return self._leave(texts, rest, received[position:])
            else:
                rest.append(received[position:end])
            position = end
        return texts, b"".join(rest)

    def _keep(self, begun: bytes, wanted_bytes: int) -> None:
        self._kept += begun
        self._wanted_bytes = wanted_bytes

    def _leave(self, texts: list[str], rest: list[bytes], following: bytes) -> tuple[list[str], bytes]:
        self.is_over = True
        return texts, b"".join((*rest, following))
