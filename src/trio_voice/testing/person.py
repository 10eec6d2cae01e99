"""The person of a simulated conversation: does what the plan says, one thing after the other.

Between the plan (`people.py`) and the session.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from trio_voice.agent import RealtimeAgent
from trio_voice.server.scripted import ScriptedBrain, tone
from trio_voice.session import RealtimeSession
from trio_voice.testing.checks import Watch
from trio_voice.testing.devices import ScriptedMicrophone
from trio_voice.testing.people import MAX_TURNS, Action, Plan
from trio_voice.testing.weather import Weather

RATE_HZ = 24_000
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
        self.watch.written += 1
        await self.session.send_text(f"{text} [{self.watch.written}]")

    async def _do(self, action: Action) -> None:
        session = self.session
        match action.act:
            case "speak":
                if self.plan.push_to_talk:
                    await session.start_listening()
                self.weather.user_speaks = True
                await self.microphone.say(SPEECH[: int(action.length_s * RATE_HZ) * 2])
                self.weather.user_speaks = False
                if self.plan.push_to_talk:
                    await session.stop_listening()
            case "write":
                await self.write("And then?")
            case "interrupt":
                turns = set(self.watch.turns)
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
