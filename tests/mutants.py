"""Mutation evidence: break one line of a copy of the code, and see that the tests named for it fail.

`scripts/mutants` runs this. `mutants.toml` beside it lists the breaks by invariant. The rule: a break that no test
notices, or that no longer fits the code, is an error; the working tree is never touched.
"""

from __future__ import annotations

import argparse
import itertools
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("src", "tests", "pyproject.toml", "README.md")
WORKERS = 2
TIMEOUT_S, UNMUTATED_TIMEOUT_S = 90, 240
"""For the tests of one mutant, and for all tests once. Many breaks make a test wait for ever: pytest's own limit is
shorter."""
TEST_TIMEOUT_S = 20
_stamps = itertools.count(1_700_000_000)
"""A modification time for each file written: Python compares seconds when it looks for compiled code."""


@attrs.frozen
class Mutant:
    """One broken line."""

    name: str
    invariant: int
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    quick: bool = False
    """One of each invariant is run by `--quick`."""


@attrs.frozen
class Outcome:
    mutant: Mutant
    verdict: str
    """`caught`, `SURVIVED`, `DOES NOT APPLY` or `NO TEST RAN`."""
    by: str
    seconds: float


def load(path: Path) -> tuple[dict[int, str], list[Mutant]]:
    """The invariants in words, and the mutants."""
    table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    invariants = {int(number): words for number, words in table["invariants"].items()}
    mutants = [Mutant(**{**fields, "tests": tuple(fields["tests"])}) for fields in table["mutant"]]
    return invariants, mutants


@contextmanager
def copies(count: int) -> Iterator[queue.Queue[Path]]:
    """As many copies of the tree, handed out one to each worker."""
    with tempfile.TemporaryDirectory(prefix="trio-voice-mutants-") as directory:
        free: queue.Queue[Path] = queue.Queue()
        for number in range(count):
            copy = Path(directory, str(number))
            copy.mkdir()
            for name in COPIED:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
                else:
                    shutil.copy2(source, copy / name)
            free.put(copy)
        yield free


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    stamp = next(_stamps)
    os.utime(path, (stamp, stamp))


def run_tests(copy: Path, tests: Sequence[str], timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """pytest's exit code, and the first test that failed (or the end of the output)."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--tb=no"]
    command += ["--hypothesis-profile", "mutants"]
    command += ["-p", "no:randomly", f"--timeout={TEST_TIMEOUT_S}", "-x", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"(no end within {timeout_s:g} s)"
    failed = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if failed:
        return done.returncode, failed[0]
    if "Timeout" in done.stdout + done.stderr:
        return 1, "(a test that waits for ever)"
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1] if done.stdout else ""


def try_mutant(mutant: Mutant, free: queue.Queue[Path]) -> Outcome:
    copy, began_at = free.get(), time.monotonic()
    path = copy / mutant.file
    try:
        original = path.read_text(encoding="utf-8") if path.exists() else ""
        if original.count(mutant.old) != 1:
            found = original.count(mutant.old)
            return Outcome(mutant, "DOES NOT APPLY", f"the line stands {found} times in {mutant.file}", 0.0)
        write(path, original.replace(mutant.old, mutant.new))
        try:
            code, by = run_tests(copy, mutant.tests)
        finally:
            write(path, original)
        # 1: tests failed. 2: not even collected, which is no evidence that a test looks at the rule.
        verdict = {0: "SURVIVED", 1: "caught"}.get(code, "NO TEST RAN")
        return Outcome(mutant, verdict, by, time.monotonic() - began_at)
    finally:
        free.put(copy)


def try_unmutated(mutants: Sequence[Mutant], free: queue.Queue[Path]) -> str | None:
    """What is wrong when nothing is broken, if anything is."""
    copy = free.get()
    try:
        where = subprocess.run(
            [sys.executable, "-c", "import trio_voice; print(trio_voice.__file__)"],
            env={**os.environ, "PYTHONPATH": str(copy / "src")}, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        if not where.startswith(str(copy)):
            return f"the tests would look at {where}, not at the copy in {copy}"
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        code, by = run_tests(copy, tests, UNMUTATED_TIMEOUT_S)
        return None if code == 0 else f"with nothing broken the tests fail: {by}"
    finally:
        free.put(copy)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one mutant of each invariant")
    parser.add_argument("--only", metavar="TEXT", help="mutants whose name holds TEXT")
    parser.add_argument("--invariant", type=int, metavar="N", help="mutants of this one")
    options = parser.parse_args()
    invariants, mutants = load(Path(__file__).with_name("mutants.toml"))
    if options.quick:
        mutants = [mutant for mutant in mutants if mutant.quick]
    if options.only:
        mutants = [mutant for mutant in mutants if options.only in mutant.name]
    if options.invariant:
        mutants = [mutant for mutant in mutants if mutant.invariant == options.invariant]
    console, lock = Console(width=None if sys.stdout.isatty() else 160), threading.Lock()

    def run_one(mutant: Mutant) -> Outcome:
        outcome = try_mutant(mutant, free)
        with lock:
            console.print(f"{outcome.verdict:>14}  {mutant.invariant} {mutant.name}", markup=False)
        return outcome

    began_at = time.monotonic()
    with copies(WORKERS) as free, ThreadPoolExecutor(WORKERS) as pool:
        unmutated = pool.submit(try_unmutated, mutants, free)
        outcomes = list(pool.map(run_one, mutants))
        complaint = unmutated.result()
    table = Table(title=f"{len(mutants)} mutants in {time.monotonic() - began_at:.0f} s")
    for heading in ("invariant", "mutant", "file", "verdict", "by", "s"):
        table.add_column(heading, overflow="fold")
    for outcome in outcomes:
        mutant = outcome.mutant
        words = f"{mutant.invariant} {invariants[mutant.invariant]}"
        file, by = mutant.file.removeprefix("src/trio_voice/"), outcome.by.partition("::")[2] or outcome.by
        table.add_row(words, mutant.name, file, outcome.verdict, by, f"{outcome.seconds:.0f}")
    console.print(table)
    if complaint:
        console.print(complaint, style="red", markup=False)
    missing = set(invariants) - {mutant.invariant for mutant in mutants}
    if missing and not (options.only or options.invariant):
        console.print(f"no mutant for invariant {', '.join(map(str, sorted(missing)))}", style="red")
    bad = [outcome for outcome in outcomes if outcome.verdict != "caught"]
    console.print(f"{len(outcomes) - len(bad)} of {len(outcomes)} caught")
    return int(bool(bad or complaint or (missing and not (options.only or options.invariant))))


if __name__ == "__main__":
    sys.exit(main())
