"""A tool that asks first: refunds of fifty euros and more wait until a person at the terminal says yes or no.

    python examples/approval.py

Without a terminal the answers are lines of standard input; where there are none, the answer is no.
"""

import json
from typing import Any

import trio

from trio_voice import AgentCapability, RealtimeAgent, RealtimeSession, ToolContext, events, tool
from trio_voice.channels import EventStream
from trio_voice.server.process import server_at_hand

PAID_EUR = {"ORD-11111": 12, "ORD-12345": 80, "ORD-67890": 950}
MUST_ASK_FROM_EUR = 50


def is_dear(_: ToolContext[None], arguments: dict[str, Any]) -> bool:
    return PAID_EUR.get(arguments["order_id"], 0) >= MUST_ASK_FROM_EUR


@tool(needs_approval=is_dear, timeout_s=300)
async def refund_order(order_id: str) -> dict[str, str]:
    """Refund an order.

    Args:
        order_id: The order number, like ORD-12345.
    """
    if order_id not in PAID_EUR:
        return {"error": f"there is no order {order_id}"}
    return {"message": f"I have refunded {PAID_EUR[order_id]} euros for {order_id}."}


AGENT = RealtimeAgent(
    name="Refunds",
    instructions="Refund orders when the customer asks for it.",
    tools=[refund_order],
    capabilities={AgentCapability.TEXT_INPUT, AgentCapability.TEXT_OUTPUT, AgentCapability.FUNCTION_CALLING},
)


async def ask_the_person(call: events.ToolApproval) -> bool:
    """Typing takes a while; the conversation would go on meanwhile."""
    order_id = json.loads(call.arguments)["order_id"]
    question = f"{call.tool}: give back {PAID_EUR[order_id]} euros for {order_id}? [yes/no] "
    try:
        answer = await trio.to_thread.run_sync(input, question, abandon_on_cancel=True)
    except EOFError:
        answer = "no"
    print(f"({order_id}: {answer})")
    return answer.strip().lower() in ("y", "yes")


async def answer_to(text: str, session: RealtimeSession, stream: EventStream) -> str:
    """What the agent says to it in the end, when the call was decided."""
    await session.send_text(text)
    answer = ""
    while not answer:
        await stream.wait_for(events.ResponseEnd)
        last = session.transcript()[-1]
        answer = last.text if last.role == "agent" else ""
    return answer


async def main() -> None:
    async with (
        server_at_hand() as connection,
        RealtimeSession(AGENT, connection=connection, approver=ask_the_person) as session,
    ):
        stream = session.events()
        for order_id in PAID_EUR:
            print(f"user: Refund my order {order_id}, please.")
            print(f"agent: {await answer_to(f'Refund my order {order_id}, please.', session, stream)}")


if __name__ == "__main__":
    trio.run(main)
