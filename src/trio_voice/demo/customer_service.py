"""The customer-service agent of the demonstration: three tools over an order book in memory."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from trio_voice.agent import RealtimeAgent
from trio_voice.function_tools import tool

ORDERS = {
    "ORD-12345": {"status": "shipped", "carrier": "UPS", "expected": "Tuesday"},
    "ORD-67890": {"status": "processing", "expected": "next Friday"},
}


@tool
async def lookup_order(order_id: str) -> dict[str, str]:
    """Look up an order: its status, carrier and expected delivery.

    Args:
        order_id: The order number, like ORD-12345.
    """
    order = ORDERS.get(order_id.upper())
    if order is None:
        return {"error": f"there is no order {order_id}"}
    return {"order_id": order_id.upper(), **order}


@tool
async def schedule_callback(
    phone_number: Annotated[str, msgspec.Meta(min_length=7)], reason: str, preferred_time: str | None = None
) -> dict[str, str]:
    """Schedule a callback: somebody phones the customer back.

    Args:
        phone_number: The number to call, like 555-1234.
        reason: What the call is about.
        preferred_time: When the customer would like to be called.
    """
    when = preferred_time or "within one business day"
    return {
        "status": "scheduled",
        "message": f"We will call you back at {phone_number}, {when}, about {reason}.",
    }


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
        "You are the customer service agent of Acme Store. Be brief and friendly. Look up orders, schedule "
        "callbacks, and transfer customers to billing, technical, sales or returns. If you are asked for anything "
        "else, say honestly that you cannot help with it and what you can do. Known orders: ORD-12345, ORD-67890."
    ),
    tools=(lookup_order, schedule_callback, transfer_to_department),
    greets_first=True,
)
