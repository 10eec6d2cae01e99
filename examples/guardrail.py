"""Guardrails: words that the agent may not say, and words that it does not answer.

Each looks at the words while the conversation goes on. What trips is not said any further, and something else is said.
"""

import trio

from trio_voice import AgentCapability, RealtimeAgent, RealtimeSession, events, input_guardrail, output_guardrail, tool
from trio_voice.channels import EventStream
from trio_voice.server.process import server_at_hand


@tool
async def lookup_order(order_id: str) -> dict[str, str]:
    """Look up an order: its status, and a note that is not for customers."""
    return {"order_id": order_id, "status": "shipped", "note": f"margin of {order_id}: 31 percent"}


@output_guardrail(say="That is not for me to say. What else may I do for you?")
async def no_margins(text: str) -> str | None:
    return "it tells our margin" if "margin" in text.lower() else None


@input_guardrail(say="Please never tell anybody your password.")
async def no_passwords(text: str) -> str | None:
    return "it has a password" if "password" in text.lower() else None


AGENT = RealtimeAgent(
    name="Shop",
    instructions="Help with orders.",
    tools=[lookup_order],
    output_guardrails=[no_margins],
    input_guardrails=[no_passwords],
    capabilities={AgentCapability.TEXT_INPUT, AgentCapability.TEXT_OUTPUT, AgentCapability.FUNCTION_CALLING},
)
WRITTEN = ("Where is my order ORD-12345?", "My password is sesame. Where is my order ORD-12345?")


async def said_instead(stream: EventStream) -> str:
    """What the agent says after the guardrail has tripped."""
    tripped = await stream.wait_for(events.GuardrailTripped)
    print(f"({tripped.guardrail}: {tripped.reason})")
    said = await stream.wait_for(events.Transcript)
    while said.role != "agent" or said.item_id == tripped.item_id or not said.final:
        said = await stream.wait_for(events.Transcript)
    return said.text


async def main() -> None:
    async with server_at_hand() as connection, RealtimeSession(AGENT, connection=connection) as session:
        stream = session.events()
        for text in WRITTEN:
            print(f"user: {text}")
            await session.send_text(text)
            print(f"agent: {await said_instead(stream)}")
            await stream.wait_for(events.ResponseEnd)


if __name__ == "__main__":
    trio.run(main)
