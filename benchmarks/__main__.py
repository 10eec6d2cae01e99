"""Run the benchmarks, print tables, write `results.json` and pictures: `scripts/bench --help`."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import click
from rich.console import Console

from benchmarks import devices_picture, guard, machine, peers, pictures, reports, reports_load
from benchmarks.figures import Options, Outcome, tell
from benchmarks.stamps import require_one_clock

BENCHMARKS: dict[str, Callable[[Console, Options], Outcome]] = {
    "downlink": reports.run_downlink,
    "uplink": reports_load.run_uplink,
    "capacity": reports_load.run_capacity,
    "jitter": reports_load.run_jitter,
    "barge_in": reports.run_barge_ins,
    "tools": reports_load.run_tools,
    "reconnect": reports.run_reconnects,
    "import": reports.run_imports,
    "connect": reports.run_connects,
    "simulation": reports_load.run_simulation,
    "voice": reports_load.run_voice,
    "long_run": reports_load.run_long,
    "devices": reports.run_devices,
    "guard": guard.run_guard,
}
ONLY_BY_NAME = {
    "devices": "it needs PulseAudio, and takes three minutes of its own",
    "guard": "it is what the tests run",
}
INTERRUPTED = 130


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A little of each: shows that it works; its figures say nothing.")
@click.option(
    "--realtime", is_flag=True, help="Run before all other processes, where it can (needs root): a stricter figure."
)
@click.option("--only", type=click.Choice(list(BENCHMARKS)), multiple=True, help="Run this one; may be given again.")
@click.option(
    "--peers",
    "peer_names",
    metavar="NAMES",
    help=f"Measure other packages beside it, each in an environment of its own: {','.join(peers.PEERS)}.",
)
@click.option(
    "--wall-minutes", type=float, default=0.0, help="The long run in so much real time, not an hour of virtual time."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/bench"),
    show_default=True,
    help="Where results.json and the pictures go.",
)
def main(
    quick: bool, realtime: bool, only: tuple[str, ...], peer_names: str | None, wall_minutes: float, out: Path
) -> None:
    """Measure trio-voice on this machine, on loopback: how late, how even, how much of a processor.

    Beside each figure stands the floor, a bare loop of asyncio, websockets and orjson that does nothing else, measured
    alternately in the same run. Their ratio is the claim; microseconds belong to one machine and one hour. Leave the
    machine alone meanwhile, about twenty minutes for all; Ctrl-C keeps what has been measured.

    \b
    scripts/bench --quick                       does everything run here?
    scripts/bench --only downlink --realtime    one figure, on a machine that is not quiet
    scripts/bench --only capacity               how many sessions in a process
    scripts/bench --peers livekit,pipecat       beside others, on the same server
    """
    require_one_clock()
    console = Console()
    if not console.is_terminal:
        console.width = 120
    wanted = only or (() if peer_names else tuple(name for name in BENCHMARKS if name not in ONLY_BY_NAME))
    load_before, before = machine.load_average(), machine.Ticks.now()
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["scripts/bench", *sys.argv[1:]]),
        "quick": quick,
        "machine": machine.facts(),
    }
    outcomes: dict[str, Outcome] = {}
    failed = interrupted = False
    with console.status("") as status:
        options = Options(quick=quick, realtime=realtime, wall_minutes=wall_minutes, progress=status.update)
        runs = [(name, BENCHMARKS[name]) for name in wanted]
        if peer_names:
            runs.append(("peers", lambda console, options: peers.run_peers(console, options, peer_names, out)))
        try:
            for name, run in runs:
                status.update(name)
                try:
                    outcomes[name] = run(console, options)
                except RuntimeError as error:  # one that cannot be measured here is named, and the others go on
                    console.print(f"[red]{name} was not measured:[/] {error}", highlight=False)
                    failed = True
        except KeyboardInterrupt:
            interrupted = True
            console.print("[yellow]Interrupted:[/] what follows is what was measured until then.")
    results |= {name: outcome.measured for name, outcome in outcomes.items()}
    results["figures"] = {
        name: [attrs.asdict(figure) | {"met": figure.is_met} for figure in outcome.figures]
        for name, outcome in outcomes.items()
    }
    shares = before.shares_until(machine.Ticks.now())
    results["load"] = {"average_before": load_before, "average_after": machine.load_average(), **shares}
    tell(console, outcomes)
    where, load = results["machine"], results["load"]
    console.print(
        f"{where['processor']}, {where['cores']} cores, {where['system']}, Python {where['python']}; "
        f"load {load['average_before']} → {load['average_after']}, {load['busy_percent']} % busy, "
        f"{load['stolen_percent']} % stolen",
        style="dim",
    )
    out.mkdir(parents=True, exist_ok=True)
    if "devices" in results:
        (out / "devices.svg").write_text(devices_picture.drawn(results["devices"]["interruptions"]), encoding="utf-8")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    written = [out / "results.json", *pictures.draw(results, out)]
    console.print(f"Written: {', '.join(map(str, written))}", style="dim", soft_wrap=True)
    if interrupted:
        sys.exit(INTERRUPTED)
    guarded = "guard" in outcomes and any(figure.is_met is False for figure in outcomes["guard"].figures)
    sys.exit(1 if failed or guarded else 0)


if __name__ == "__main__":
    main(prog_name="scripts/bench")
