"""The physical limit: as many bytes as a piece of sound has, there and back over a bare TCP connection, halved.

Run: python -m benchmarks.echo PORT --count N [--core N]; prints JSON. The server is `echo_server` in this file.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time

from benchmarks import processes
from benchmarks.downlink import percentile
from benchmarks.machine import cores, pin
from benchmarks.stamps import PCM_BYTES

MESSAGE_BYTES = PCM_BYTES * 4 // 3
INTERVAL_S = 0.005
WARM_UP = 20


def echo_server(core: int | None) -> None:
    pin(core)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while received := connection.recv(65_536):
                connection.sendall(received)


def echo(port: int, count: int) -> list[float]:
    """Half of each round trip, in microseconds."""
    took_us = []
    message = bytes(MESSAGE_BYTES)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count + WARM_UP):
            time.sleep(INTERVAL_S)
            began_ns = time.perf_counter_ns()
            connection.sendall(message)
            received = 0
            while received < MESSAGE_BYTES:
                received += len(connection.recv(65_536))
            took_us.append((time.perf_counter_ns() - began_ns) / 2000)
    return took_us[WARM_UP:]


def measure(count: int) -> float:
    """The median, with both ends pinned as the benchmarks' are."""
    core, _ = cores()
    command = [sys.executable, "-m", "benchmarks.echo", "0", *([] if core is None else ["--core", str(core)])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        took_us = processes.run("benchmarks.echo", port, "--count", str(count), timeout_s=60)
    return percentile(took_us, 50)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("port", type=int)
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--core", type=int)
    chosen = options.parse_args()
    if chosen.port == 0:
        echo_server(chosen.core)
    else:
        pin(chosen.core)
        print(json.dumps(echo(chosen.port, chosen.count)))
