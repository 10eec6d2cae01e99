"""Two agents: the desk finds out what it is about, and hands the conversation over to billing."""

import trio

from trio_voice import AgentCapability, RealtimeAgent, RealtimeSession, ToolContext, events, handoff, tool
from trio_voice.channels import EventStream
from trio_voice.server.process import server_at_hand


@tool
async def lookup_bill(bill_id: str) -> dict[str, str]:
    """Look up a bill: what it is for, and whether it is paid."""
    return {"bill_id": bill_id, "item": "a red chair", "status": "paid"}


async def note(context: ToolContext[list[str]]) -> None:
    context.context.append(f"{context.agent.name if context.agent else 'nobody'} called billing")


IN_WRITING = {AgentCapability.TEXT_INPUT, AgentCapability.TEXT_OUTPUT, AgentCapability.FUNCTION_CALLING}
BILLING = RealtimeAgent("Billing", "Answer questions about bills.", tools=[lookup_bill], capabilities=IN_WRITING)
DESK = RealtimeAgent(
    "Desk",
    "Find out what the caller needs. For anything about a bill hand over to billing.",
    handoffs=[handoff(BILLING, description="Hand over to billing: bills and payments.", on_handoff=note)],
    capabilities=IN_WRITING,
)


async def answer_to(text: str, session: RealtimeSession, stream: EventStream) -> str:
    """What the agent in charge says to it in the end, when all tools have been called."""
    await session.send_text(text)
    answer = ""
    while not answer:
        response = await stream.wait_for(events.ResponseEnd)
        last = session.transcript()[-1]
        answer = last.text if response.status == "completed" and last.role == "agent" else ""
    return f"{session.agent.name}: {answer}"


async def main() -> None:
    notes: list[str] = []
    async with (
        server_at_hand() as connection,
        RealtimeSession(DESK, connection=connection, context=notes) as session,
    ):
        session.on("handoff", lambda event: print(f"({event.from_agent} → {event.to_agent})"))
        stream = session.events()
        for text in ("Please transfer me to billing.", "Look up the bill B-77, please."):
            print(f"user: {text}")
            print(await answer_to(text, session, stream))
    print(notes[0])


if __name__ == "__main__":
    trio.run(main)
