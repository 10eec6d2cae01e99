"""The server's end of a WebSocket, for the messages that are nearly all there are: whole ones of text.

Between the bytes of a connection and wsproto, which takes four times as long for them. The invariant: everything else
is left to wsproto, byte for byte and a frame at a time: pieces of messages, control frames, and whatever breaks the
rules of RFC 6455.
"""

from __future__ import annotations

import attrs

from trio_voice.text_frames import LONGEST_SHORT, MASKED, TWO_BYTES, WHOLE_TEXT


@attrs.define(eq=False)
class FrameCutter:
    """Cuts what a client sends into texts, and into frames for wsproto."""

    _kept: bytes = b""
    _in_pieces: bool = False
    """Between the first frame of a message in several and its last."""

    def cut(self, received: bytes) -> list[str | bytes]:
        """What is complete with `received`: a text, or a frame that is another's business."""
        kept = self._kept + received
        pieces: list[str | bytes] = []
        position = 0
        while (end := _end_of_frame(kept, position)) is not None:
            pieces.append(self._read(kept, position, end))
            position = end
        self._kept = kept[position:]
        return pieces

    def _read(self, kept: bytes, start: int, end: int) -> str | bytes:
        first, length = kept[start], kept[start + 1] - MASKED
        if first != WHOLE_TEXT or self._in_pieces or not 0 <= length <= TWO_BYTES:
            if not first & 0x08:  # no control frame: those may come in between
                self._in_pieces = not first & 0x80
            return kept[start:end]
        mask_at = start + (4 if length == TWO_BYTES else 2)
        if length == TWO_BYTES and end - mask_at - 4 <= LONGEST_SHORT:
            return kept[start:end]  # longer than it need be said: against the rules
        try:
            return _unmasked(kept[mask_at : mask_at + 4], kept[mask_at + 4 : end]).decode()
        except UnicodeDecodeError:
            return kept[start:end]


def _end_of_frame(kept: bytes, start: int) -> int | None:
    """Where the frame ends that begins at `start`; None while it has not all come."""
    if len(kept) < start + 2:
        return None
    length, head = kept[start + 1] & 0x7F, 2
    if length >= TWO_BYTES:
        head = 4 if length == TWO_BYTES else 10
        if len(kept) < start + head:
            return None
        length = int.from_bytes(kept[start + 2 : start + head])
        if length >> 63:  # no length: wsproto says so
            return len(kept)
    end = start + head + (4 if kept[start + 1] & MASKED else 0) + length
    return end if end <= len(kept) else None


def _unmasked(mask: bytes, payload: bytes) -> bytes:
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(length)
