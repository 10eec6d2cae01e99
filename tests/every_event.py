"""Every event that goes over a wire in a test, validated by the typed `openai` package.

What a session sends is caught at its wire, what the local server sends where it is encoded. What the package refuses is
noted, and the test that sent it fails when it is over. Events that are no OpenAI's on purpose (another dialect's, a
refused configuration) are let through by `pytest.mark.other_shapes(reason)`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from openai_oracle import validate
from trio_voice import wire
from trio_voice.protocol import encode
from trio_voice.server import played

REFUSALS_SHOWN = 3


@contextmanager
def watched() -> Iterator[list[str]]:
    """What the package refuses of all that is sent meanwhile."""
    refusals: list[str] = []
    put = wire.Wire.put

    def look(side: str, frame: str) -> None:
        try:
            validate(frame)
        except json.JSONDecodeError:
            pass  # the wire's own tests send any text; an event is encoded by msgspec, and is JSON
        except (ValidationError, KeyError) as refusal:
            refusals.append(f"{side} sent {frame[:400]}\n{refusal}")

    def put_validated(self: wire.Wire, text: str) -> bool:
        look("the session", text)
        return put(self, text)

    def encode_validated(event: Any) -> str:
        frame = encode(event)
        look("the server", frame)
        return frame

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire.Wire, "put", put_validated)
        patch.setattr(played, "encode", encode_validated)
        yield refusals


@pytest.fixture(autouse=True)
def every_event_is_valid(request: pytest.FixtureRequest) -> Iterator[None]:
    with watched() as refusals:
        yield
    if refusals and request.node.get_closest_marker("other_shapes") is None:
        pytest.fail(f"{len(refusals)} events are not the protocol's:\n" + "\n".join(refusals[:REFUSALS_SHOWN]))
