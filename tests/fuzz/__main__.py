"""`scripts/fuzz --inputs N --sessions N --interleavings N --seed S`: the decoder with so many frames, then so many
sessions, then the playback buffer with so many interleavings."""

from __future__ import annotations

import argparse
import logging
import platform
import time
from collections import Counter
from datetime import UTC, datetime

from fuzz import decoder, interleavings, session

CHUNK = 10_000
SESSIONS = 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000, help="frames for the decoder")
    parser.add_argument("--sessions", type=int, default=100, help="sessions against a hostile server")
    parser.add_argument("--interleavings", type=int, default=2000, help="for the playback buffer")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {platform.machine()}, {options}"
    )
    began_at, seen = time.monotonic(), Counter[str]()
    for first in range(0, options.inputs, CHUNK):
        seen += decoder.run(min(CHUNK, options.inputs - first), options.seed * 1_000_003 + first)
        if first % (10 * CHUNK) == 0:
            print(f"decoder: {sum(seen.values())} inputs, {time.monotonic() - began_at:.0f} s", flush=True)
    print(f"decoder: {sum(seen.values())} inputs in {time.monotonic() - began_at:.0f} s: {dict(seen)}", flush=True)
    began_at, ends = time.monotonic(), Counter[str]()
    for first in range(0, options.sessions, SESSIONS):
        ends += session.run(min(SESSIONS, options.sessions - first), options.seed * 1_000_003 + first)
    print(f"sessions: {options.sessions} in {time.monotonic() - began_at:.0f} s: {dict(ends)}", flush=True)
    began_at = time.monotonic()
    if options.interleavings:
        tried = interleavings.run(options.interleavings, options.seed)
        print(f"interleavings: {options.interleavings}, {tried} operations, in {time.monotonic() - began_at:.0f} s")


if __name__ == "__main__":
    main()
