"""The person of a simulated conversation: does what the plan says, one thing after the other.

Between the plan (`people.py`) and the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import attrs
import trio

from trio_voice.agent import RealtimeAgent
from trio_voice.errors import HistoryError
from trio_voice.protocol.edits import Role
from trio_voice.server.scripted import ScriptedBrain, tone
from trio_voice.session import RealtimeSession
from trio_voice.testing.checks import Watch
from trio_voice.testing.devices import ScriptedMicrophone
from trio_voice.testing.people import MAX_TURNS, Action, Plan
from trio_voice.testing.weather import Weather
from trio_voice.testing.word_rules import FORBIDDEN, words_for

RATE_HZ = 24_000
TEXTS = ("And then?", "And why?", "Once more, please.", "Go on.", f"What is {FORBIDDEN}?")
INJECTED: tuple[Role, ...] = ("user", "assistant", "system")
SPEECH = tone(440, 5000, RATE_HZ).tobytes()


@attrs.define(eq=False)
class Person:
    plan: Plan
    session: RealtimeSession
    microphone: ScriptedMicrophone
    weather: Weather
    brain: ScriptedBrain
    watch: Watch
    agents: Sequence[RealtimeAgent]

    async def take_part(self) -> None:
        if not self.plan.push_to_talk:
            await self.session.start_listening()
        for action in self.plan.actions:
            if len(self.brain.requests) > MAX_TURNS:
                return
            await trio.sleep(action.after_s)
            await self._do(action)

    async def write(self, text: str) -> None:
        number = self.watch.written = self.watch.written + 1
        if self.plan.guardrails and FORBIDDEN in text:
            self.watch.words.refused.add(number)
            self.watch.unsaid.add(number)
        self.watch.words.went_on()
        await self.session.send_text(f"{text} [{number}]")

    async def _do(self, action: Action) -> None:
        session = self.session
        match action.act:
            case "speak":
                if self.plan.push_to_talk:
                    await session.start_listening()
                self.weather.user_speaks = True
                await self.microphone.say(SPEECH[: int(action.length_s * RATE_HZ) * 2])
                self.weather.user_speaks = False
                self.watch.words.went_on()
                if self.plan.push_to_talk:
                    await session.stop_listening()
            case "write":
                await self.write(TEXTS[action.pick % len(TEXTS)])
            case "interrupt":
                turns = set(self.watch.turns)
                self.watch.words.went_on()
                await session.interrupt()
                self.watch.hushed(turns)
            case "respond":
                await session.respond()
            case "pause":
                await session.pause()
                await trio.sleep(action.length_s)
                await session.resume()
            case "mute":
                await session.mute()
                await trio.sleep(action.length_s)
                await session.unmute()
            case "stop_listening":
                await session.stop_listening()
                await trio.sleep(action.length_s)
                await session.start_listening()
            case "hand_over":
                await session.update_agent(self.agents[action.pick % len(self.agents)])
            case "inject":
                await self._inject(action.pick)
            case "edit" | "delete":
                with suppress(HistoryError):
                    await self._edit(action)
            case "reset":
                self.watch.record.edits += 1
                before = [item.id for item in session.history]
                self.watch.words.went_on()
                await session.reset_history()
                self.watch.record.took_out(before)
                self.watch.nothing_is_missed()
            case "say":
                number = self.watch.words.said = self.watch.words.said + 1
                self.watch.words.want("To be said:", number)
                await session.say(words_for("To be said:", number))

    async def _inject(self, pick: int) -> None:
        role = INJECTED[pick % len(INJECTED)]
        text = f"This was put in {pick}."
        if role == "user":
            self.watch.written += 1
            text += f" [{self.watch.written}]"
        responds = pick % 4 == 0
        if responds:
            self.watch.words.went_on()
        self.watch.record.put_in(await self.session.inject(role, text, respond=responds), text)
        self.watch.record.edits += 1

    async def _edit(self, action: Action) -> None:
        """Raises: `HistoryError` where it cannot be changed now."""
        kinds = ("message",) if action.act == "edit" else ("message", "function_call", "function_call_output")
        items = [item for item in self.session.history if item.kind in kinds]
        if not items:
            return
        item, record = items[action.pick % len(items)], self.watch.record
        if action.act == "delete":
            await self.session.delete_item(item.id)
        else:
            text = f"This was edited {action.pick}."
            record.put_in(await self.session.edit_item(item.id, text), text)
        record.edits += 1
        record.took_out([item.id])
        self.watch.not_missed(item.text, item.call_id)
