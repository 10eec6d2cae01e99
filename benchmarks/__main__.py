"""Run the benchmarks, print tables, write `results.json`: `scripts/bench --help`."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import attrs
import click
from rich.console import Console
from rich.table import Table

from benchmarks import barge_in, devices, devices_picture, downlink, machine, reconnect, starting
from benchmarks.barge_in_server import BURST
from benchmarks.stamps import require_one_clock

MEANINGS = {
    "floor": "floor (asyncio, websockets)",
    "websocket": "trio-websocket + codec",
    "callback": 'session.on("audio")',
    "events": "session.events(audio=True)",
    "speaker": "playback buffer",
}


def run_downlink(console: Console, quick: bool, realtime: bool) -> dict[str, Any]:
    plan = attrs.evolve(downlink.QUICK if quick else downlink.Plan(), realtime=realtime)
    with console.status("downlink") as status:
        results = downlink.summarise(downlink.measure(plan, status.update))
    table = Table(
        title=f"Downlink: server's send → PCM in hand, as multiples of the floor (aim: p50 ≤ {downlink.AIM_RATIO})",
        title_justify="left",
    )
    table.add_column("to", no_wrap=True)
    for heading in ("p50", "rounds", "p99", "CPU", "p50 µs", "p99 µs", "CPU µs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        low, high = result.p50_ratio_range
        table.add_row(
            MEANINGS[result.variant],
            f"{result.p50_ratio:.2f}",
            f"{low:.2f}-{high:.2f}",
            f"{result.p99_ratio:.2f}",
            f"{result.cpu_ratio:.2f}",
            f"{result.p50_us:.0f}",
            f"{result.p99_us:.0f}",
            f"{result.cpu_us_per_event:.0f}",
        )
    console.print(table)
    return {"plan": attrs.asdict(plan), "variants": {result.variant: attrs.asdict(result) for result in results}}


def run_imports(console: Console, quick: bool, realtime: bool) -> dict[str, Any]:
    with console.status("import"):
        results = starting.import_times(1 if quick else 5)
    table = Table("import", title="Import, in a new process", title_justify="left")
    table.add_column("median ms", justify="right")
    for result in results:
        table.add_row(result.package, f"{result.median_ms:.0f}")
    console.print(table)
    return {result.package: attrs.asdict(result) for result in results}


def run_connects(console: Console, quick: bool, realtime: bool) -> dict[str, Any]:
    with console.status("connect"):
        results = starting.connect_times(1 if quick else 3, 3 if quick else 20)
    table = Table("connect", title="Connect on loopback, until the server has the configuration", title_justify="left")
    for heading in ("first ms", "later, median ms"):
        table.add_column(heading, justify="right")
    names = {"floor": "floor", "callback": "async with RealtimeSession"}
    for result in results:
        table.add_row(names[result.variant], f"{result.first_ms:.1f}", f"{result.later_ms:.2f}")
    console.print(table)
    return {result.variant: attrs.asdict(result) for result in results}


def run_reconnects(console: Console, quick: bool, realtime: bool) -> dict[str, Any]:
    plan = attrs.evolve(reconnect.QUICK if quick else reconnect.Plan(), realtime=realtime)
    with console.status("reconnect"):
        result = reconnect.measure(plan)
    table = Table(
        "from a reset socket",
        title=f"Reconnect on loopback (aim: p50 ≤ {reconnect.AIM_MS:g} ms)",
        title_justify="left",
    )
    for heading in ("p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    table.add_row("to connected(resumed)", f"{result.connected_p50_ms:.1f}", f"{result.connected_p99_ms:.1f}")
    table.add_row("to the first microphone frame", f"{result.uplink_p50_ms:.1f}", f"{result.uplink_p99_ms:.1f}")
    console.print(table)
    console.print(
        f"{result.resets} resets; silence in the answer that played meanwhile: {result.gap_ms:g} ms; "
        f"latest block {result.latest_block_ms:.1f} ms late"
    )
    return {"plan": attrs.asdict(plan), **attrs.asdict(result)}


def run_barge_ins(console: Console, quick: bool, realtime: bool) -> dict[str, Any]:
    plan = attrs.evolve(barge_in.QUICK if quick else barge_in.Plan(), realtime=realtime)
    with console.status("barge-in"):
        results = barge_in.measure(plan)
    table = Table(
        "the application, 20 ms for each piece",
        title=f"Barge-in, {BURST} pieces queued: server's speech_started → application (aim: {barge_in.AIM_MS:g} ms)",
        title_justify="left",
    )
    for heading in ("callback p50 / p99 ms", "its own stream p50 / p99 ms", "stale bytes", "next answers whole"):
        table.add_column(heading, justify="right")
    for result in results:
        callback = "-"
        if result.callback_p50_ms is not None:
            callback = f"{result.callback_p50_ms:.1f} / {result.callback_p99_ms:.1f}"
        table.add_row(
            result.variant,
            callback,
            f"{result.listener_p50_ms:.1f} / {result.listener_p99_ms:.1f}",
            f"{result.stale_bytes}",
            f"{result.whole_answers} of {result.interruptions}",
        )
    console.print(table)
    console.print(f"stale samples at the loudspeaker: {sum(result.speaker_stale_samples for result in results)}")
    return {"plan": attrs.asdict(plan), "variants": {result.variant: attrs.asdict(result) for result in results}}


def run_devices(console: Console, quick: bool, realtime: bool) -> dict[str, Any]:
    plan = attrs.evolve(devices.QUICK if quick else devices.Plan(), realtime=realtime)
    with console.status("devices"):
        result = devices.measure(plan)
    table = Table("block", title="Real PortAudio on PulseAudio null sinks, 24 kHz", title_justify="left")
    for heading in ("silent p50 ms", "p99 ms", "aim", "stale", "written", "heard", "position p50", "most", "late"):
        table.add_column(heading, justify="right")
    for each in result.interruptions:
        table.add_row(
            str(each.block_samples),
            f"{each.silent_p50_ms:.1f}",
            f"{each.silent_p99_ms:.1f}",
            f"{devices.AIM_SILENT_MS[each.block_samples]:g}",
            str(each.stale_samples),
            str(each.written_samples),
            str(each.heard_samples),
            f"{each.position_p50_samples:g}",
            str(each.position_most_samples),
            str(each.late_callbacks),
        )
    console.print(table)
    back = result.restarts
    console.print(
        f"{plan.interruptions} interruptions each. The microphone: {result.microphone_exact} of "
        f"{result.microphone_runs} runs bit for bit. Sound server killed in mid-sentence, {back.restarts} times: "
        f"sound {back.back_p50_ms:.0f} ms after it is back (p50), {back.back_most_ms:.0f} ms at most; "
        f"{back.finished} sentences finished; at most {back.repeated_most_samples} samples heard twice, "
        f"{back.lost_most_samples} lost; {back.abandoned} streams that could not be closed",
        highlight=False,
    )
    return {"plan": attrs.asdict(plan), **attrs.asdict(result)}


BENCHMARKS = {
    "downlink": run_downlink,
    "import": run_imports,
    "connect": run_connects,
    "reconnect": run_reconnects,
    "barge_in": run_barge_ins,
    "devices": run_devices,
}
NEEDS_THE_LAB = "devices"
"""Runs only when it is named: it needs PulseAudio, and takes three minutes of its own."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A few events: shows that it works; its figures say nothing.")
@click.option(
    "--realtime", is_flag=True, help="Run before all other processes (downlink, reconnect, devices; needs root)."
)
@click.option("--only", type=click.Choice(list(BENCHMARKS)), help="Run this one alone.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/bench"),
    show_default=True,
    help="Where results.json goes.",
)
def main(quick: bool, realtime: bool, only: str | None, out: Path) -> None:
    """Measure trio-voice on this machine, on loopback. About three minutes; leave the machine alone meanwhile."""
    require_one_clock()
    console = Console()
    if not console.is_terminal:
        console.width = 120
    load_before, before = machine.load_average(), machine.Ticks.now()
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine.facts(),
    }
    for name, run in BENCHMARKS.items():
        if only == name or (only is None and name != NEEDS_THE_LAB):
            results[name] = run(console, quick, realtime)
    results["load"] = {
        "average_before": load_before,
        "average_after": machine.load_average(),
        **before.shares_until(machine.Ticks.now()),
    }
    where, load = results["machine"], results["load"]
    console.print(
        f"{where['processor']}, {where['cores']} cores, {where['system']}, Python {where['python']}; "
        f"load {load['average_before']} → {load['average_after']}, {load['busy_percent']} % busy, "
        f"{load['stolen_percent']} % stolen",
        style="dim",
    )
    out.mkdir(parents=True, exist_ok=True)
    if "devices" in results:
        picture = devices_picture.drawn(results["devices"]["interruptions"])
        (out / "devices.svg").write_text(picture, encoding="utf-8")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Written: {out / 'results.json'}", style="dim")


if __name__ == "__main__":
    main(prog_name="scripts/bench")
