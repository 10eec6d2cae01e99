"""The tables of the benchmarks of one session, and what of each is a figure that was aimed at."""

from __future__ import annotations

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks import barge_in, devices, downlink, reconnect, starting
from benchmarks.barge_in_server import BURST
from benchmarks.figures import Figure, Options, Outcome

MEANINGS = {
    "floor": "floor (asyncio, websockets)",
    "websocket": "trio-websocket + codec",
    "callback": 'session.on("audio")',
    "events": "session.events(audio=True)",
    "speaker": "playback buffer",
}


def run_downlink(console: Console, options: Options) -> Outcome:
    plan = attrs.evolve(downlink.QUICK if options.quick else downlink.Plan(), realtime=options.realtime)
    results = downlink.summarise(downlink.measure(plan, options.progress))
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
    return Outcome(
        {"plan": attrs.asdict(plan), "variants": {result.variant: attrs.asdict(result) for result in results}},
        [
            Figure(f"p50 ÷ floor, {MEANINGS[result.variant]}", result.p50_ratio, aim=downlink.AIM_RATIO)
            for result in results
            if result.variant in ("callback", "events", "speaker")
        ],
    )


def run_imports(console: Console, options: Options) -> Outcome:
    results = starting.import_times(1 if options.quick else 5)
    table = Table("import", title="Import, in a new process", title_justify="left")
    table.add_column("median ms", justify="right")
    for result in results:
        table.add_row(result.package, f"{result.median_ms:.0f}")
    console.print(table)
    whole = next(result for result in results if result.package == "trio_voice.session")
    return Outcome(
        {result.package: attrs.asdict(result) for result in results},
        [Figure("import of a session", whole.median_ms, "ms", starting.AIM_IMPORT_MS)],
    )


def run_connects(console: Console, options: Options) -> Outcome:
    results = starting.connect_times(1 if options.quick else 3, 3 if options.quick else 20)
    table = Table("connect", title="Connect on loopback, until the server has the configuration", title_justify="left")
    for heading in ("first ms", "later, median ms"):
        table.add_column(heading, justify="right")
    names = {"floor": "floor", "callback": "async with RealtimeSession"}
    for result in results:
        table.add_row(names[result.variant], f"{result.first_ms:.1f}", f"{result.later_ms:.2f}")
    console.print(table)
    ours = next(result for result in results if result.variant == "callback")
    return Outcome(
        {result.variant: attrs.asdict(result) for result in results},
        [Figure("connect, after the first", ours.later_ms, "ms", starting.AIM_CONNECT_MS)],
    )


def run_reconnects(console: Console, options: Options) -> Outcome:
    plan = attrs.evolve(reconnect.QUICK if options.quick else reconnect.Plan(), realtime=options.realtime)
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
    return Outcome(
        {"plan": attrs.asdict(plan), **attrs.asdict(result)},
        [Figure("reset to connected, p50", result.connected_p50_ms, "ms", reconnect.AIM_MS)],
    )


def run_barge_ins(console: Console, options: Options) -> Outcome:
    plan = attrs.evolve(barge_in.QUICK if options.quick else barge_in.Plan(), realtime=options.realtime)
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
    ours = [result for result in results if result.variant != "floor"]
    quick_one = next((result for result in results if result.variant == "idle"), None)
    slow_one = next(result for result in results if result.variant == "sleeping")
    return Outcome(
        {"plan": attrs.asdict(plan), "variants": {result.variant: attrs.asdict(result) for result in results}},
        [
            *([Figure("signal, p99", quick_one.callback_p99_ms or 0.0, "ms", 1.5)] if quick_one else []),
            Figure("signal under a slow application, p99", slow_one.callback_p99_ms or 0.0, "ms", barge_in.AIM_MS),
            Figure("stale bytes after it", sum(result.stale_bytes for result in ours), "", 0),
            Figure("stale samples heard", sum(result.speaker_stale_samples for result in ours), "", 0),
        ],
    )


def run_devices(console: Console, options: Options) -> Outcome:
    plan = attrs.evolve(devices.QUICK if options.quick else devices.Plan(), realtime=options.realtime)
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
    return Outcome(
        {"plan": attrs.asdict(plan), **attrs.asdict(result)},
        [
            Figure(
                f"silent, p50, blocks of {each.block_samples}",
                each.silent_p50_ms,
                "ms",
                devices.AIM_SILENT_MS[each.block_samples],
            )
            for each in result.interruptions
        ],
    )
