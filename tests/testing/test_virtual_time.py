"""The clock of the simulation keeps the order of time, and forgets who has gone."""

from __future__ import annotations

import trio

from trio_voice.testing.virtual_time import VirtualClock


def in_virtual_time(clock: VirtualClock, *sleepers: tuple[str, float, bool]) -> list[tuple[str, float]]:
    """Who woke, and when: each sleeps until its time by Trio's own means, or by the clock's."""
    woke: list[tuple[str, float]] = []

    async def sleep(name: str, at: float, by_trio: bool) -> None:
        await (trio.sleep_until(at) if by_trio else clock.sleep_until(at))
        woke.append((name, trio.current_time()))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for sleeper in sleepers:
                nursery.start_soon(sleep, *sleeper)

    trio.run(main, clock=clock)
    return woke


def test_sleepers_of_both_kinds_wake_in_the_order_of_their_times() -> None:
    woke = in_virtual_time(
        VirtualClock(), ("late", 3600.0, True), ("first", 1.0, False), ("third", 2.5, False), ("second", 2.0, True)
    )
    assert woke == [("first", 1.0), ("second", 2.0), ("third", 2.5), ("late", 3600.0)]


def test_what_is_past_wakes_at_once_and_time_does_not_go_back() -> None:
    clock = VirtualClock()

    async def main() -> float:
        await trio.sleep(5)
        await clock.sleep_until(1.0)
        return trio.current_time()

    assert trio.run(main, clock=clock) == 5.0


def test_a_sleep_ends_when_it_is_cancelled() -> None:
    clock = VirtualClock()

    async def main() -> float:
        with trio.move_on_after(1):
            await clock.sleep_until(100)
        at = trio.current_time()
        await clock.sleep_until(200)  # over the time at which the other would have ended
        assert trio.current_time() == 200.0
        return at

    assert trio.run(main, clock=clock) == 1.0


def test_something_happens_at_each_tick_and_never_after_the_end() -> None:
    clock = VirtualClock()
    ticks: list[float] = []

    async def main() -> None:
        with clock.every(0.5, lambda: ticks.append(trio.current_time())):
            await trio.sleep(1.75)
        await trio.sleep(10)

    trio.run(main, clock=clock)
    assert ticks == [0.0, 0.5, 1.0, 1.5]
