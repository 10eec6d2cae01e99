"""A shop that has more to do than talk: a session inside a Trio application, beside its other tasks.

The warehouse ships orders meanwhile; what it ships while the customer is on the line is told aloud. Closing time is
an ordinary cancel scope around everything.
"""

import trio

from trio_voice import AgentCapability, RealtimeAgent, RealtimeSession, events, tool
from trio_voice.channels import EventStream
from trio_voice.server.process import server_at_hand

CLOSING_TIME_S = 60
orders = {"ORD-12345": "being packed"}


@tool
async def lookup_order(order_id: str) -> dict[str, str]:
    """Look up an order: its status."""
    return {"order_id": order_id, "status": orders.get(order_id, "not known")}


AGENT = RealtimeAgent(
    name="Shop",
    instructions="Help with orders.",
    tools=[lookup_order],
    capabilities={AgentCapability.TEXT_INPUT, AgentCapability.TEXT_OUTPUT, AgentCapability.FUNCTION_CALLING},
)


async def warehouse(shipped: trio.MemorySendChannel[str], asked: trio.Event) -> None:
    """Ships one order after the other, whoever is on the line."""
    async with shipped:
        await asked.wait()
        for order_id in list(orders):
            orders[order_id] = "shipped"
            await shipped.send(order_id)


async def tell_the_customer(session: RealtimeSession, shipped: trio.MemoryReceiveChannel[str]) -> None:
    async for order_id in shipped:
        print(f"warehouse: {order_id} is shipped")
        await session.send_text(f"Where is my order {order_id}?")


async def show(stream: EventStream, answers: trio.MemorySendChannel[str]) -> None:
    async with answers:
        async for event in stream:
            if isinstance(event, events.Transcript) and event.role == "agent" and event.final:
                print(f"agent: {event.text}")
                await answers.send(event.text)


async def main() -> None:
    send_shipped, shipped = trio.open_memory_channel[str](0)
    send_answers, answers = trio.open_memory_channel[str](0)
    asked = trio.Event()
    with trio.move_on_after(CLOSING_TIME_S):
        async with (
            server_at_hand() as connection,
            RealtimeSession(AGENT, connection=connection) as session,
            trio.open_nursery() as shop,
        ):
            shop.start_soon(show, session.events(), send_answers)
            shop.start_soon(warehouse, send_shipped, asked)
            shop.start_soon(tell_the_customer, session, shipped)
            await session.send_text("Where is my order ORD-12345?")
            await answers.receive()
            asked.set()
            await answers.receive()
            shop.cancel_scope.cancel()
    print("closed")


if __name__ == "__main__":
    trio.run(main)
