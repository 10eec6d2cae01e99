"""An agent with a tool, asked in writing."""

import trio

from trio_voice import AgentCapability, RealtimeAgent, RealtimeSession, events, tool
from trio_voice.server.process import server_at_hand


@tool
async def lookup_order(order_id: str) -> dict[str, str]:
    """Look up an order: its status and expected delivery."""
    return {"order_id": order_id, "status": "shipped", "expected": "Tuesday"}


IN_WRITING = {AgentCapability.TEXT_INPUT, AgentCapability.TEXT_OUTPUT, AgentCapability.FUNCTION_CALLING}
AGENT = RealtimeAgent(instructions="Help with orders.", tools=[lookup_order], capabilities=IN_WRITING)


async def main() -> None:
    async with server_at_hand() as connection, RealtimeSession(AGENT, connection=connection) as session:
        stream = session.events()
        await session.send_text("Where is my order ORD-12345?")
        answer = await stream.wait_for(events.Transcript)
        while not answer.final:
            answer = await stream.wait_for(events.Transcript)
        print(f"agent: {answer.text}")


if __name__ == "__main__":
    trio.run(main)
