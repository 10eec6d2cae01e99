"""A customer-service voice agent, whole: three tools, a record with metadata, a summary, and what the tools did.

python examples/customer_service.py             a customer who writes; works anywhere
python examples/customer_service.py --talk      your microphone and loudspeaker; wear headphones, end with Ctrl-C
"""

import argparse
from typing import Literal

import attrs
import trio

from trio_voice import (
    AgentCapability,
    AudioInputConfig,
    AudioOutputConfig,
    RealtimeAgent,
    RealtimeSession,
    VoiceAgent,
    events,
    tool,
)
from trio_voice.channels import EventStream
from trio_voice.server.process import server_at_hand

ORDERS = {
    "ORD-12345": {"status": "shipped", "carrier": "UPS", "expected": "Tuesday"},
    "ORD-67890": {"status": "processing", "expected": "next Friday"},
}
WRITTEN = (
    "Where is my order ORD-12345?",
    "Please call me back tomorrow morning about my payment. My number is 555-1234.",
    "Put me through to billing, please.",
)


@tool
async def lookup_order(order_id: str) -> dict[str, str]:
    """Look up an order: its status, carrier and expected delivery.

    Args:
        order_id: The order number, like ORD-12345.
    """
    order = ORDERS.get(order_id.upper())
    return {"order_id": order_id.upper(), **order} if order else {"error": f"there is no order {order_id}"}


@tool
async def schedule_callback(phone_number: str, reason: str, preferred_time: str | None = None) -> dict[str, str]:
    """Schedule a callback: somebody phones the customer back.

    Args:
        phone_number: The number to call, like 555-1234.
        reason: What the call is about.
        preferred_time: When the customer would like to be called.
    """
    when = preferred_time or "within one business day"
    return {"status": "scheduled", "message": f"We will call you back at {phone_number}, {when}, about {reason}."}


@tool
def transfer_to_department(department: Literal["billing", "technical", "sales", "returns"]) -> dict[str, str]:
    """Transfer the customer to a department.

    Args:
        department: Where to put the customer through to.
    """
    return {"message": f"I am transferring you to the {department} department now."}


AGENT = RealtimeAgent(
    name="Customer service",
    instructions=(
        "You are the customer service agent of Acme Store. Be brief and friendly. Look up orders, schedule callbacks, "
        "and transfer customers to billing, technical, sales or returns."
    ),
    tools=[lookup_order, schedule_callback, transfer_to_department],
    greets_first=True,
)
IN_WRITING = {AgentCapability.TEXT_INPUT, AgentCapability.TEXT_OUTPUT, AgentCapability.FUNCTION_CALLING}


async def show(stream: EventStream) -> None:
    """What happens, as it happens."""
    async for event in stream:
        match event:
            case events.Transcript(role=role, text=text, final=True, truncated=truncated):
                print(f"{role:>8}: {text}{' —' if truncated else ''}")
            case events.ToolFinished(tool=name, output=output, duration_ms=duration_ms):
                print(f"{'tool':>8}: {name} → {output} ({duration_ms:.0f} ms)")
            case events.Interruption(heard_ms=heard_ms):
                print(f"{'':>8}  (interrupted after {heard_ms} ms)")


async def write(session: RealtimeSession) -> None:
    """The customer who writes: each line when the answer to the one before was given."""
    stream = session.events()
    for line in WRITTEN:
        print(f"{'user':>8}: {line}")
        await session.send_text(line)
        answered = False
        while not answered:  # a response that only calls tools says nothing, and is followed by one that does
            said = await stream.wait_for(events.Transcript)
            answered = said.role == "agent" and said.final
        await stream.wait_for(events.ResponseEnd)


def tell(session: RealtimeSession) -> None:
    """The summary, turn by turn."""
    summary, customer = session.summary(), session.tracker.metadata["customer"]
    print(f"\n{summary['turn_count']} turns in {summary['duration_seconds']:.1f} s with {customer}")
    print(f"{summary['interruption_count']} interruptions, average latency {summary['average_latency_ms']} ms")
    for turn in session.turns():
        used = ", ".join(f"{use.tool}({use.arguments})" for use in turn.tool_calls) or "no tool"
        print(f"  turn {turn.id}: {used}")


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--talk", action="store_true", help="use the microphone and the loudspeaker")
    talks = arguments.parse_args().talk
    async with server_at_hand() as connection:
        metadata = {"customer": "C-1001", "channel": "voice" if talks else "text"}
        if talks:
            from trio_voice.devices.portaudio import PortAudioMicrophone, PortAudioSpeaker

            agent = VoiceAgent(
                AGENT,
                connection,
                PortAudioMicrophone(),
                PortAudioSpeaker(),
                AudioInputConfig(sample_rate_hz=24_000, chunk_ms=20),
                AudioOutputConfig(prebuffer_ms=100),
            )
        else:
            agent = VoiceAgent(attrs.evolve(AGENT, capabilities=IN_WRITING, greets_first=False), connection)
        session = agent.session(metadata=metadata)
        try:
            async with session, trio.open_nursery() as nursery:
                nursery.start_soon(show, session.events())
                if talks:
                    await session.start_listening()
                    await trio.sleep_forever()
                await write(session)
                nursery.cancel_scope.cancel()
        finally:
            tell(session)


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        pass
