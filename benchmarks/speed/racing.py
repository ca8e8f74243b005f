"""Who answers more requests over loopback, and how late is the latest of a hundred?

Here a server and an event loop are in the way, so it is wall time. All contenders serve
at once, each in a process of its own, and take turns: A B C, A B C, ... What is compared
is paired, within a round: the machine of one round is not that of the next.

The table ``item`` of the database is made anew, and left.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environments import CURRENT, QUART_SQLALCHEMY, ROOT
from .rows import ADVANCED, ALCHEMICAL, DUALCHEMY, FLOOR, FSA, LITE, QSA, WITH

DRIVER = "driver alone"
DRIVERS = {"flask": "psycopg", "quart": "asyncpg"}
HEATS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    CURRENT.name: {
        "flask": (
            (FLOOR, FSA, DRIVER, DUALCHEMY),
            (FLOOR, LITE, ADVANCED, ALCHEMICAL),
        ),
        "quart": ((FLOOR, WITH, DRIVER, DUALCHEMY),),
    },
    QUART_SQLALCHEMY.name: {"quart": ((FLOOR, WITH, QSA),)},
}
"""Who races at once, by environment and framework; not all, for PostgreSQL lets a hundred
connections in, and each has twenty.
"""


@dataclass(frozen=True)
class Load:
    """Requests that are sent."""

    title: str
    path: str
    method: str = "GET"
    concurrency: int = 20


LOADS = {
    "ping": Load("ping", "/ping"),
    "by_key": Load("row by key", "/items/7"),
    "list": Load("list of 20", "/items"),
    "insert": Load("insert and commit", "/items", "POST"),
    "slow": Load("a query of 10 ms, 200 at once", "/slow", concurrency=200),
}


@contextmanager
def serving(
    python: Path, framework: str, contender: str, url: str
) -> Iterator[socket.socket]:
    """Serve a contender; yields the listening socket."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    os.set_inheritable(listener.fileno(), True)
    server = subprocess.Popen(
        [
            python,
            "-m",
            "benchmarks.speed.serving",
            framework,
            contender,
            url,
            str(listener.fileno()),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        close_fds=False,
    )
    try:
        yield listener
    finally:
        server.terminate()
        server.wait(10)
        listener.close()


async def _client(port: int, request: bytes, until: float, late: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while time.perf_counter() < until:
            start = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.split(b" ", 2)[1] == b"200", head
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            late.append(time.perf_counter() - start)
    finally:
        writer.close()


async def _load(port: int, load: Load, seconds: float) -> tuple[float, float]:
    """Return requests a second, and the 99th percentile of the seconds of one."""
    request = f"{load.method} {load.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    late: list[float] = []
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(load.concurrency):
            client = _client(port, request.encode(), start + seconds, late)
            group.create_task(client)
    late.sort()
    return len(late) / (time.perf_counter() - start), late[int(len(late) * 0.99)]


def race(
    python: Path,
    framework: str,
    contenders: Sequence[str],
    url: str,
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    """Return, by load and contender, the throughput and p99 of each round."""
    found: dict[str, Any] = {name: {each: [] for each in contenders} for name in LOADS}
    url = url.replace("postgresql:", f"postgresql+{DRIVERS[framework]}:", 1)
    prepare = [python, "-m", "benchmarks.speed.serving", "prepare"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    sync_url = url.replace("asyncpg", "psycopg")
    subprocess.run([*prepare, sync_url], cwd=ROOT, env=environ, check=True)
    with ExitStack() as stack:
        ports = {
            contender: stack.enter_context(
                serving(python, framework, contender, url)
            ).getsockname()[1]
            for contender in contenders
        }
        for name, load in LOADS.items():
            for number in range(rounds + 1):
                order = list(ports)
                random.shuffle(order)
                for contender in order:
                    result = asyncio.run(_load(ports[contender], load, seconds))
                    if number:  # the first one fills pools and caches
                        found[name][contender].append(result)
    return found
