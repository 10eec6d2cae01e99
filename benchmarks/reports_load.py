"""The tables of uplink, capacity, jitter, tools, simulation, voice to voice and the long run, and their figures."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks import echo, jitter, load, processes, tool_calls, voice
from benchmarks.figures import Figure, Options, Outcome
from benchmarks.load import LoadPlan

MEANINGS = {"floor": "floor (asyncio, websockets)", "bare": "trio-websocket + codec", "session": "RealtimeSession"}


def plan_of(options: Options) -> LoadPlan:
    return attrs.evolve(load.QUICK if options.quick else LoadPlan(), realtime=options.realtime)


def run_uplink(console: Console, options: Options) -> Outcome:
    plan = attrs.evolve(plan_of(options), rounds=1 if options.quick else 6)
    rounds = load.measure_uplink(plan, options.progress)
    results = load.summarise(rounds, up=True)
    options.progress("echo")
    limit_us = echo.measure(50 if options.quick else 400)
    table = Table(title="Uplink: microphone's frame of 20 ms → server", title_justify="left")
    table.add_column("by", no_wrap=True)
    for heading in ("p50 ÷ floor", "p50 µs", "p99 µs", "CPU ÷ floor", "frames as they were", "others"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        measured = rounds[result.variant]
        table.add_row(
            MEANINGS[result.variant],
            f"{result.p50_ratio:.2f}",
            f"{result.p50_us:.0f}",
            f"{result.p99_us:.0f}",
            f"{result.cpu_ratio:.2f}",
            str(sum(each.exact_frames for each in measured)),
            str(sum(each.other_frames for each in measured)),
        )
    console.print(table)
    console.print(f"A bare TCP echo of 6,400 bytes, half the way there and back: {limit_us:.0f} µs (p50)")
    ours = next(result for result in results if result.variant == "session")
    return Outcome(
        {"plan": attrs.asdict(plan), "variants": [attrs.asdict(result) for result in results], "echo_p50_us": limit_us},
        [
            Figure("p50 ÷ floor", ours.p50_ratio, aim=load.AIM_UPLINK_RATIO),
            Figure("frames re-chunked", sum(each.other_frames for each in rounds["session"]), "", 0),
        ],
    )


def run_capacity(console: Console, options: Options) -> Outcome:
    plan = plan_of(options)
    found = load.measure_capacity(plan, options.progress)
    summary = {count: load.summarise(rounds, up=False) for count, rounds in found.items()}
    table = Table(
        title="Sessions in one process: each hears 100 ms pieces and sends 20 ms frames all the time",
        title_justify="left",
    )
    table.add_column("sessions", justify="right")
    for heading in ("floor p50 / p99 ms", "ours p50 / p99 ms", "floor CPU-s a minute", "ours", "÷", "floor MB", "ours"):
        table.add_column(heading, justify="right", no_wrap=True)
    for count, results in summary.items():
        floor, ours = results
        table.add_row(
            str(count),
            *(f"{each.p50_us / 1000:.2f} / {each.p99_us / 1000:.1f}" for each in results),
            f"{floor.cpu_s:.3f}",
            f"{ours.cpu_s:.3f}",
            f"{ours.cpu_ratio:.2f}",
            f"{floor.memory_mb:.3f}",
            f"{ours.memory_mb:.3f}",
        )
    console.print(table)
    paced = found.get(load.AT_SESSIONS)
    without_pacing = load.cpu_ratio_without_pacing(paced) if paced else None
    if paced:
        timers = [statistics.median(each.cpu_s for each in paced[name]) for name in load.PACING]
        console.print(
            f"The timers in place of microphones take, for {load.AT_SESSIONS} sessions by themselves, {timers[0]:.3f} "
            f"CPU-s a minute on asyncio, {timers[1]:.3f} on Trio. Without them the ratio is {without_pacing:.2f}",
            highlight=False,
        )
    floors, ours_most = load.in_time(summary, "floor"), load.in_time(summary, "session")
    console.print(f"In time (p99 < {load.LATE_MS:g} ms) with at most: floor {floors}, trio-voice {ours_most} sessions")
    at = summary.get(load.AT_SESSIONS, next(reversed(summary.values())))[1]
    # Of many, so that what is imported late, or allocated in blocks, is not one session's.
    many = max(summary)
    return Outcome(
        {
            "plan": attrs.asdict(plan),
            "sessions": {str(count): [attrs.asdict(each) for each in results] for count, results in summary.items()},
            "in_time": {"floor": floors, "session": ours_most},
            "cpu_ratio_without_pacing": without_pacing,
        },
        [
            Figure(f"CPU ÷ floor, {at.sessions} sessions", at.cpu_ratio, aim=load.AIM_CPU_RATIO),
            Figure("sessions in time", ours_most, "", floors, at_least=True),
            Figure(f"memory per session, of {many}", summary[many][1].memory_mb, "MB", load.AIM_MEMORY_MB),
        ],
    )


def run_jitter(console: Console, options: Options) -> Outcome:
    found = jitter.measure(1.0 if options.quick else 15.0, options.progress)
    table = Table(title="Jitter, ms: p50 / p99 / p99.9 late", title_justify="left")
    for heading in ("by", "work in each 20 ms"):
        table.add_column(heading, no_wrap=True)
    for heading in ("event loop", "frame → server", "a loudspeaker's pull takes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found:
        cells = [
            "-" if row[name] is None else " / ".join(f"{value / 1000:.2f}" for value in row[name])
            for name in ("stalls_us", "frames_us", "pulls_us")
        ]
        table.add_row(MEANINGS[row["variant"]], f"{row['work_ms']} ms", *cells)
    console.print(table)
    return Outcome({"rows": found})


def run_tools(console: Console, options: Options) -> Outcome:
    rounds, count = (1, 20) if options.quick else (4, 100)
    measured = tool_calls.measure(rounds, count, options.progress)
    table = Table("tools", title="Server's function call → the tool's first line", title_justify="left")
    for heading in ("p50 µs", "p99 µs"):
        table.add_column(heading, justify="right")
    for variant, result in measured["variants"].items():
        table.add_row(MEANINGS[variant], f"{result['p50_us']:.0f}", f"{result['p99_us']:.0f}")
    console.print(table)
    return Outcome(measured, [Figure("p50 ÷ floor", measured["p50_ratio"])])


def run_simulation(console: Console, options: Options) -> Outcome:
    hours = 0.05 if options.quick else 0.5
    options.progress(f"simulation: {hours * 60:g} virtual minutes")
    began = time.perf_counter()
    speeds: dict[str, float] = {}
    for wire in ("websocket", "direct"):
        command = [sys.executable, "-m", "trio_voice.testing.simulate", "--hours", str(hours), "--wire", wire]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
        if done.returncode:
            raise RuntimeError(f"the simulation broke a rule:\n{done.stdout}\n{done.stderr}")
        said = next(line for line in done.stdout.splitlines() if line.startswith("virtual seconds per wall second"))
        speeds[wire] = float(said.split()[-1])
    console.print(
        f"Simulation, virtual seconds per wall second and core: {speeds['websocket']:.0f} over WebSocket frames, "
        f"{speeds['direct']:.0f} without bytes ({time.perf_counter() - began:.0f} s in all)",
        highlight=False,
    )
    return Outcome({"hours": hours, "virtual_s_per_wall_s": speeds}, [Figure("virtual s per s", speeds["websocket"])])


def run_voice(console: Console, options: Options) -> Outcome:
    options.progress("voice to voice, with the local speech server")
    times = 1 if options.quick else 5
    exchanges = processes.run("benchmarks.voice", "--times", str(times), timeout_s=900)
    if all(each["tool"] for each in exchanges):
        raise RuntimeError("nothing was answered")
    result = voice.summarise(exchanges)
    table = Table("voice to voice, local speech server", title_justify="left")
    table.add_column("median ms", justify="right")
    for part, took_ms in result["parts_ms"].items():
        table.add_row(voice.MEANINGS[part], f"{took_ms:.0f}")
    table.add_row("[bold]the whole, p50[/]", f"[bold]{result['p50_ms']:.0f}[/]")
    table.add_row("the longest", f"{result['worst_ms']:.0f}")
    if result["with_tool"]["exchanges"]:
        table.add_row("p50 where a tool is called first", f"{result['with_tool']['p50_ms']:.0f}")
    console.print(table)
    return Outcome(result, [Figure("p50", result["p50_ms"], "ms", voice.AIM_MS)])


def run_long(console: Console, options: Options) -> Outcome:
    if options.wall_minutes:
        how = ["--wall-minutes", str(options.wall_minutes)]
    else:
        how = ["--virtual-minutes", "3" if options.quick else "60"]
    options.progress(f"long run: {' '.join(how)}")
    found: dict[str, Any] = processes.run("benchmarks.long_run", *how, timeout_s=3600 + options.wall_minutes * 60)
    kind = "virtual" if found["virtual"] else "real"
    looks = zip(found["at_minutes"], found["memory_mb"], strict=True)
    console.print(
        f"Long run: {found['minutes']:g} {kind} minutes, {found['turns']} turns; memory "
        f"{', '.join(f'{held:.1f} MB at {at:g}' for at, held in looks)}; {found['growth_mb']:.1f} MB more after the "
        f"first quarter; {found['tasks_left']} tasks and {found['descriptors_left']} descriptors left",
        highlight=False,
    )
    return Outcome(
        found,
        [
            Figure("memory after the first quarter", found["growth_mb"], "MB more", 3.0),
            Figure("tasks and descriptors left", found["tasks_left"] + found["descriptors_left"], "", 0),
        ],
    )
