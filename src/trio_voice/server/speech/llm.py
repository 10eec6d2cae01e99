"""A language model as the brain's dialogue: any OpenAI-compatible chat-completions endpoint (Ollama, llama.cpp,
vLLM, a hosted one), spoken to over a Trio stream.

Stands where `dialogue.py` stands, with the same `Say` and `Call`. Invariant: the connection belongs to one
`reply`; however it is left, by the end, an error or cancellation, the socket is closed, and so the model stops.

HTTP is h11 over a Trio stream, not a client library: a barge-in cancels in the middle of a sentence, and httpx
(httpx2 2.16 as well) then leaves its response's async generators open, which Trio reports as ResourceWarning.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import h11
import trio

from trio_voice.errors import ConfigError

from .completions import Answer, LlmError, error_text, request_body
from .dialogue import Part

if TYPE_CHECKING:
    from trio_voice.protocol.items import Item, Tool

MAX_LINE_BYTES = 1 << 20
MAX_ERROR_BYTES = 1 << 16
_READ_BYTES = 1 << 16


def _endpoint(url: str) -> str:
    """The full URL of the completions, from a server's address or its `/v1`."""
    parts = urlsplit(url)
    try:
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{url!r} is no model server's address: write it like http://localhost:11434/v1")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path or '/v1'}/chat/completions"
    return parts._replace(path=path, fragment="").geturl()


@attrs.frozen
class LlmDialogue:
    """Answers by asking a model. One object serves any number of replies at once: it holds no connection."""

    url: str = attrs.field(converter=_endpoint)
    """Of the server (`http://localhost:11434`), of its `/v1`, or of the completions themselves."""
    model: str
    api_key: str | None = attrs.field(default=None, repr=False)
    connect_timeout_s: float = 5.0
    silence_timeout_s: float = 60.0
    """How long the server may send nothing; a model that is being loaded is silent for long."""
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, repr=False)

    async def reply(
        self,
        items: Sequence[Item],
        tools: Sequence[Tool],
        instructions: str,
        emit: Callable[[Part], Awaitable[None]],
    ) -> None:
        """Answer the conversation: `emit` each sentence as soon as it is whole, then the calls.

        Cancellation: closes the connection at once; what was emitted stands.
        Raises: LlmError, with what to do, if the server cannot be reached, refuses, is silent for too long or
        answers nonsense.
        """
        body = json.dumps(request_body(items, tools, instructions, self.model)).encode()
        stream = await self._connect()
        try:
            exchange = _Exchange(stream, self)
            await exchange.ask(body)
            await self._read(exchange, emit)
        finally:
            await trio.aclose_forcefully(stream)

    async def _connect(self) -> trio.abc.Stream:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        stream: trio.abc.Stream | None = None
        with trio.move_on_after(self.connect_timeout_s):
            try:
                if parts.scheme == "http":
                    stream = await trio.open_tcp_stream(host, parts.port or 80)
                else:
                    stream = await trio.open_ssl_over_tcp_stream(
                        host, parts.port or 443, https_compatible=True, ssl_context=self.ssl_context
                    )
            except OSError as error:
                raise LlmError(
                    f"no model server answers at {self.url} ({error}): start it (for Ollama: `ollama serve`) "
                    "or correct the address",
                    retryable=True,
                ) from error
        if stream is None:
            raise LlmError(
                f"no connection to {self.url} within {self.connect_timeout_s:g} s: check the address and the network",
                retryable=True,
            )
        return stream

    async def _read(self, exchange: _Exchange, emit: Callable[[Part], Awaitable[None]]) -> None:
        answer = Answer()
        if exchange.streamed:
            while (payload := await exchange.event()) is not None:
                for part in answer.feed(payload):
                    await emit(part)
        else:  # a server that does not stream sends one JSON
            for part in answer.feed((await exchange.body(MAX_LINE_BYTES)).decode("utf-8", "replace")):
                await emit(part)
        for part in answer.finish():
            await emit(part)


class _Exchange:
    """One HTTP request and its response on one stream."""

    def __init__(self, stream: trio.abc.Stream, dialogue: LlmDialogue) -> None:
        self._stream = stream
        self._dialogue = dialogue
        self._http = h11.Connection(h11.CLIENT)
        self._line = bytearray()
        self._over = False
        self.streamed = False

    async def ask(self, body: bytes) -> None:
        """Send the request and read the response's head. Raises: LlmError for any status but 200."""
        parts = urlsplit(self._dialogue.url)
        host = parts.netloc.rpartition("@")[2]
        headers = [
            ("Host", host),
            ("Content-Type", "application/json"),
            ("Accept", "text/event-stream"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        if self._dialogue.api_key:
            headers.append(("Authorization", f"Bearer {self._dialogue.api_key}"))
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            head = self._http.send(h11.Request(method="POST", target=target, headers=headers))
        except h11.LocalProtocolError as error:
            raise LlmError(f"the address or the key cannot be sent ({error}): check both for odd characters") from None
        sent = (head or b"") + (self._http.send(h11.Data(data=body)) or b"")
        try:
            await self._stream.send_all(sent + (self._http.send(h11.EndOfMessage()) or b""))
        except trio.BrokenResourceError as error:
            raise self._broken(error) from error
        event = await self._next()
        while isinstance(event, h11.InformationalResponse):
            event = await self._next()
        if not isinstance(event, h11.Response):
            raise LlmError(f"{self._dialogue.url} closed the connection without an answer: try again", retryable=True)
        kinds = [value for name, value in event.headers if name == b"content-type"]
        self.streamed = any(b"event-stream" in kind for kind in kinds)
        if event.status_code != 200:
            raise self._refusal(event.status_code, await self.body(MAX_ERROR_BYTES))

    def _refusal(self, status: int, body: bytes) -> LlmError:
        text = body.decode("utf-8", "replace")
        try:
            why = error_text(json.loads(text))
        except (ValueError, RecursionError):
            why = error_text(text[:200])
        said = f"{self._dialogue.url} answered {status}{f' ({why})' if why else ''}"
        match status:
            case 401 | 403:
                return LlmError(f"{said}: set the API key that this server wants")
            case 404:
                return LlmError(f"{said}: check the address, and that it has the model {self._dialogue.model!r}")
            case 400 | 422:
                return LlmError(f"{said}: choose a model and a server that support function calling")
            case 408 | 429 | 500 | 502 | 503 | 504:
                return LlmError(f"{said}: it is busy or failed; wait a little, or look into its log", retryable=True)
            case _:
                return LlmError(f"{said}: check the address")

    async def event(self) -> str | None:
        """The payload of the next server-sent event; None when the stream is over."""
        payload: list[str] = []
        while (line := await self._next_line()) is not None:
            if line.startswith("data:"):
                payload.append(line[5:].removeprefix(" "))
            elif not line and payload:
                break
        text = "\n".join(payload)
        return None if not payload or text.strip() == "[DONE]" else text

    async def body(self, limit: int) -> bytes:
        """The rest of the response, at most `limit` bytes of it."""
        read = bytearray()
        while not self._over and len(read) < limit:
            read += await self._chunk()
        return bytes(read[:limit])

    async def _next_line(self) -> str | None:
        while (end := self._line.find(b"\n")) < 0:
            if self._over:
                rest, self._line = bytes(self._line), bytearray()
                return rest.decode("utf-8", "replace").rstrip("\r") if rest else None
            if len(self._line) > MAX_LINE_BYTES:
                raise LlmError(f"{self._dialogue.url} sends a line without an end: check the address")
            self._line += await self._chunk()
        line = self._line[:end].decode("utf-8", "replace").rstrip("\r")
        del self._line[: end + 1]
        return line

    async def _chunk(self) -> bytes:
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self._over = True
        return b""

    def _broken(self, error: Exception) -> LlmError:
        why = error.__cause__ or error
        return LlmError(
            f"the answer of {self._dialogue.url} broke off, or is no HTTP ({why}): try again, or check the address",
            retryable=True,
        )

    async def _next(self) -> h11.Event:
        """The next HTTP event. Raises: LlmError when the server is silent for too long, or gone."""
        while True:
            try:
                event = self._http.next_event()
                if not isinstance(event, type):
                    return event
                with trio.move_on_after(self._dialogue.silence_timeout_s) as patience:
                    self._http.receive_data(bytes(await self._stream.receive_some(_READ_BYTES)))
            except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
                raise self._broken(error) from error
            if patience.cancelled_caught:
                raise LlmError(
                    f"{self._dialogue.url} sent nothing for {self._dialogue.silence_timeout_s:g} s: "
                    "is the model still being loaded? Try again, or choose a smaller one",
                    retryable=True,
                )
