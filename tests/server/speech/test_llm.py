"""The model behind the dialogue, against a small real HTTP server on the loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import h11
import pytest
import trio

from trio_voice.errors import ConfigError, TrioVoiceError
from trio_voice.protocol.items import Item, Tool
from trio_voice.server.speech.completions import LlmError
from trio_voice.server.speech.dialogue import Call, Part, Say
from trio_voice.server.speech.llm import LlmDialogue

TOOL = Tool(name="lookup_order", description="Look up an order.", parameters={"type": "object", "properties": {}})
ASK = [Item.user_text("Where is my order?")]


def event(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def tool_delta(index: int, name: str | None = None, arguments: str = "", id: str | None = None) -> dict[str, Any]:
    return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


DONE = b"data: [DONE]\n\n"


@attrs.define
class Asked:
    """A request that the server got, and the means to answer it as the test likes."""

    stream: trio.SocketStream
    target: str = ""
    headers: dict[str, str] = attrs.field(factory=dict)
    body: dict[str, Any] = attrs.field(factory=dict)

    async def head(self, status: int = 200, kind: str = "text/event-stream") -> None:
        await self.stream.send_all(
            f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )

    async def chunk(self, piece: bytes) -> None:
        await self.stream.send_all(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    async def end(self) -> None:
        await self.stream.send_all(b"0\r\n\r\n")


async def read_request(stream: trio.SocketStream) -> Asked:
    asked = Asked(stream)
    http = h11.Connection(h11.SERVER)
    body = b""
    while True:
        got = http.next_event()
        if got is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(got, h11.Request):
            asked.target = got.target.decode()
            asked.headers = {name.decode(): value.decode() for name, value in got.headers}
        elif isinstance(got, h11.Data):
            body += got.data
        else:
            asked.body = json.loads(body)
            return asked


@asynccontextmanager
async def model_server(answer: Callable[[Asked], Awaitable[None]]) -> AsyncIterator[str]:
    async def serve(stream: trio.SocketStream) -> None:
        try:
            await answer(await read_request(stream))
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def reply(url: str, **settings: Any) -> list[Part]:
    parts: list[Part] = []

    async def emit(part: Part) -> None:
        parts.append(part)

    await LlmDialogue(url, "tiny", **settings).reply(ASK, [TOOL], "Be kind.", emit)
    return parts


async def test_the_first_sentence_is_out_before_the_answer_ends() -> None:
    spoken_first = trio.Event()

    async def answer(asked: Asked) -> None:
        await asked.head()
        await asked.chunk(event(role="assistant", content="Your order "))
        await asked.chunk(event(content="has shipped. It will"))
        await spoken_first.wait()  # the rest only comes once the first sentence was given out
        await asked.chunk(event(content=" be there on Tuesday."))
        await asked.chunk(DONE)
        await asked.end()

    parts: list[Part] = []

    async def emit(part: Part) -> None:
        parts.append(part)
        spoken_first.set()

    async with model_server(answer) as url:
        with trio.fail_after(10):
            await LlmDialogue(url, "tiny").reply(ASK, [], "", emit)
    assert parts == [Say("Your order has shipped."), Say("It will be there on Tuesday.")]


async def test_calls_that_come_in_pieces_are_whole_and_last() -> None:
    async def answer(asked: Asked) -> None:
        await asked.head()
        await asked.chunk(event(content="One moment."))
        await asked.chunk(event(tool_calls=[tool_delta(0, "lookup_order", '{"order', "c1")]))
        await asked.chunk(event(tool_calls=[tool_delta(0, None, '_id":"ORD-12345"}')]))
        await asked.chunk(event(tool_calls=[tool_delta(1, "lookup_order", "", "c2")]))
        await asked.chunk(b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n' + DONE)
        await asked.end()

    async with model_server(answer) as url:
        parts = await reply(url)
    assert parts == [
        Say("One moment."),
        Call("lookup_order", '{"order_id":"ORD-12345"}'),
        Call("lookup_order", "{}"),
    ]


async def test_the_request_carries_model_messages_tools_and_key() -> None:
    seen: list[Asked] = []

    async def answer(asked: Asked) -> None:
        seen.append(asked)
        await asked.head()
        await asked.chunk(event(content="Yes.") + DONE)
        await asked.end()

    async with model_server(answer) as url:
        await reply(url, api_key="secret")
        await reply(f"{url}/v1/")
    assert [asked.target for asked in seen] == ["/v1/chat/completions"] * 2
    assert seen[0].headers["authorization"] == "Bearer secret"
    assert "authorization" not in seen[1].headers
    body = seen[0].body
    assert (body["model"], body["stream"]) == ("tiny", True)
    assert body["messages"][0]["content"].startswith("Be kind.")
    assert body["messages"][1] == {"role": "user", "content": "Where is my order?"}
    assert body["tools"][0]["function"]["name"] == "lookup_order"


async def test_bytes_split_anywhere_make_the_same_answer() -> None:
    stream = b": a comment\r\n\r\n" + event(content="Grüße aus Zürich. Bis bald.").replace(b"\n", b"\r\n") + DONE

    async def answer(asked: Asked) -> None:
        await asked.head()
        for i in range(len(stream)):
            await asked.chunk(stream[i : i + 1])
        await asked.end()

    async with model_server(answer) as url:
        assert await reply(url) == [Say("Grüße aus Zürich."), Say("Bis bald.")]


async def test_a_server_that_does_not_stream() -> None:
    async def answer(asked: Asked) -> None:
        await asked.head(kind="application/json")
        message = {"role": "assistant", "content": "Hello there.", "tool_calls": [tool_delta(0, "lookup_order", "{}")]}
        await asked.chunk(json.dumps({"choices": [{"message": message}]}).encode())
        await asked.end()

    async with model_server(answer) as url:
        assert await reply(url) == [Say("Hello there."), Call("lookup_order", "{}")]


@pytest.mark.parametrize(
    ("status", "advice", "retryable"),
    [
        (401, "API key", False),
        (404, "has the model 'tiny'", False),
        (400, "function calling", False),
        (503, "busy", True),
        (302, "check the address", False),
    ],
)
async def test_refusals_say_what_to_do(status: int, advice: str, retryable: bool) -> None:
    async def answer(asked: Asked) -> None:
        await asked.head(status, "application/json")
        await asked.chunk(b'{"error": {"message": "because of it"}}')
        await asked.end()

    async with model_server(answer) as url:
        with pytest.raises(LlmError) as caught:
            await reply(url, api_key="secret-key")
    assert advice in str(caught.value)
    assert "because of it" in str(caught.value)
    assert "secret-key" not in str(caught.value)
    assert caught.value.retryable is retryable
    assert isinstance(caught.value, TrioVoiceError)


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([b"data: {nonsense\n\n"], "no JSON"),
        ([b'data: {"other": 1}\n\n'], "another form"),
        ([b'data: {"error": {"message": "out of memory"}}\n\n'], "out of memory"),
        ([], "before it answered"),
        ([event(tool_calls=[tool_delta(0, "f", "{no")]), DONE], "no JSON object"),
    ],
)
async def test_nonsense_is_a_typed_error(pieces: list[bytes], words: str) -> None:
    async def answer(asked: Asked) -> None:
        await asked.head()
        for piece in pieces:
            await asked.chunk(piece)
        await asked.end()

    async with model_server(answer) as url:
        with pytest.raises(LlmError, match=words):
            await reply(url)


async def test_a_stream_that_breaks_off_keeps_what_was_said() -> None:
    async def answer(asked: Asked) -> None:
        await asked.head()
        await asked.chunk(event(content="First. Then"))
        await asked.stream.aclose()

    parts: list[Part] = []

    async def emit(part: Part) -> None:
        parts.append(part)

    async with model_server(answer) as url:
        with pytest.raises(LlmError, match="broke off") as caught:
            await LlmDialogue(url, "tiny").reply(ASK, [], "", emit)
    assert parts == [Say("First.")]
    assert caught.value.retryable


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: the port refuses
        with pytest.raises(LlmError, match="no model server answers") as caught:
            await reply(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert caught.value.retryable


async def test_silence_is_bounded() -> None:
    async def answer(asked: Asked) -> None:
        await asked.head()
        await trio.sleep_forever()

    async with model_server(answer) as url:
        with pytest.raises(LlmError, match="sent nothing for"):
            await reply(url, silence_timeout_s=0.05)


async def test_cancelling_while_speaking_closes_the_connection() -> None:
    gone = trio.Event()

    async def answer(asked: Asked) -> None:
        await asked.head()
        await asked.chunk(event(content="One. Two. Three. "))
        assert await asked.stream.receive_some(1) == b""
        gone.set()

    parts: list[Part] = []
    async with model_server(answer) as url:
        with trio.fail_after(10), trio.CancelScope() as scope:

            async def emit(part: Part) -> None:
                parts.append(part)
                scope.cancel()
                await trio.lowlevel.checkpoint()

            await LlmDialogue(url, "tiny").reply(ASK, [], "", emit)
        with trio.fail_after(10):
            await gone.wait()
    assert scope.cancelled_caught
    assert parts == [Say("One.")]


async def test_an_error_of_the_consumer_is_its_own() -> None:
    async def answer(asked: Asked) -> None:
        await asked.head()
        await asked.chunk(event(content="One. Two. "))
        await asked.end()

    async def emit(part: Part) -> None:
        raise trio.BrokenResourceError("the loudspeaker")

    async with model_server(answer) as url:
        with pytest.raises(trio.BrokenResourceError, match="loudspeaker"):
            await LlmDialogue(url, "tiny").reply(ASK, [], "", emit)


@pytest.mark.parametrize("url", ["", "localhost:11434", "ftp://x", "http://", "http://x:99999"])
def test_an_address_that_cannot_work(url: str) -> None:
    with pytest.raises(ConfigError, match="write it like"):
        LlmDialogue(url, "tiny")


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(LlmDialogue("http://x", "tiny", api_key="secret"))
