"""Does anything leak when thousands of requests succeed, fail, and are broken off?

``python -m benchmarks.soak``, from the root of the project, serves a Quart app with
hypercorn and sends it six kinds of request over HTTP, mixed in a random but repeatable
order: ones that commit, that raise an exception after a flush, whose client disconnects
at any moment, that asyncio.timeout ends, whose task is cancelled and cancelled again
while it cleans up, and that roll back. There are ten times as many requests at a time
as connections, so cancellations meet requests that wait for the pool as well.

It does so four times: with Dualchemy and with a session per request written by hand, on
asyncpg and on psycopg. Views, engine options and requests are the same. The table has a
row for each, and below it what its columns *unexpected* and *warnings* are made of:

- *ok* to *rollback*: how many requests ended in each of the six ways, and *requests*:
  how many were sent.
- *unexpected*: what ended in another way, what the app logged as an error, rows that
  are missing after a commit that was answered, and rows that are there without one.
- *2nd cancel*: how many second cancellations met a request that was still cleaning up.
- *opened*: connections made to the database. They are many, for one that is cancelled
  within a statement is closed.
- *leaked*: connections that are checked out of the pool when no request is left, and
  connections of the server that no pool knows.
- *in transaction*: connections that idle in a transaction then, as the server sees it.
- *running*: statements that the server then still runs, for nobody. They end by
  themselves in half a minute, so these are only the last ones.
- *warnings*: what Python had to tell until the process ended: connections left to the
  garbage collector, tasks that never ended, exceptions that nobody saw, sockets that
  nobody closed.
- *MB*: the memory of the serving process after a warm-up of a tenth as many requests,
  and at the end.

Zero is the only good number for *unexpected*, *leaked*, *in transaction*, *running* and
*warnings*; if one of Dualchemy's is another, the exit status is 1. Connections and
megabytes are to be compared within one table: they depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import logging
import multiprocessing
import os
import random
import signal
import socket
import struct
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, ClassVar, Self, TextIO

import psutil  # type: ignore[import-untyped]
import psycopg
from hypercorn.asyncio import serve as serve_asgi
from hypercorn.config import Config as HypercornConfig
from quart import Quart, g
from quart.typing import ResponseReturnValue
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SAWarning
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualchemy import Model
from dualchemy.quart import SQLAlchemy

HOST = "127.0.0.1"
ENGINE_OPTIONS = {"pool_size": 15, "max_overflow": 5}
DRIVERS = ("asyncpg", "psycopg")
KINDS = ("ok", "exception", "disconnect", "timeout", "double-cancel", "rollback")
LONGEST = 30
"""Seconds that a statement or a view runs that nobody breaks off."""
PATIENCE = 60
"""Seconds that a client waits for an answer, longer than any view or the pool."""
SETTLE = 15
"""Seconds that what is left may take to come to rest, less than a statement runs."""


# The app: one set of views, two ways to give them a session.


class EntryColumns:
    """What each request writes: its number, and its kind."""

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(index=True)
    kind: Mapped[str]


class Base(DeclarativeBase):
    pass


class Entry(EntryColumns, Base):
    __tablename__ = "entry"


@dataclass(frozen=True)
class Site:
    """An app, and what its views and this program need of it."""

    app: Quart
    entry: type[Any]
    """A model with the columns above, on the base that the app uses."""
    session: Callable[[], AsyncSession]
    """Gives the session of the current request."""
    engine: Callable[[], Awaitable[AsyncEngine]]


def with_dualchemy(url: str) -> Site:
    class OwnBase(Model):
        pass

    class Entry(EntryColumns, OwnBase):
        pass

    app = Quart("soak")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = ENGINE_OPTIONS
    db = SQLAlchemy(app, model_class=OwnBase)

    async def engine() -> AsyncEngine:
        async with app.app_context():
            return db.engine

    return Site(app, Entry, db.session, engine)


def by_hand(url: str) -> Site:
    app = Quart("soak")
    engine = create_async_engine(url, **ENGINE_OPTIONS)
    sessionmaker = async_sessionmaker(engine, expire_on_commit=False)

    @app.before_request
    async def open_session() -> None:
        g.session = sessionmaker()

    @app.teardown_request
    async def close_session(exception: BaseException | None) -> None:
        session = g.pop("session", None)
        if session is not None:
            await session.close()

    @app.after_serving
    async def dispose() -> None:
        await engine.dispose()

    async def the_engine() -> AsyncEngine:
        return engine

    return Site(app, Entry, lambda: g.session, the_engine)


SITES: dict[str, Callable[[str], Site]] = {
    "Dualchemy": with_dualchemy,
    "by hand": by_hand,
}


class PlannedError(Exception):
    """What a view raises that is to raise something."""


def add_views(site: Site, counts: Counter[str]) -> None:
    app, entry = site.app, site.entry

    async def work_until_cancelled(session: AsyncSession, number: int) -> None:
        """Be in one statement, or wait for something else within a transaction, or go
        through all that a session does, over and over.
        """
        way = random.Random(number).choice(["statement", "elsewhere", "all"])
        async with asyncio.timeout(LONGEST):
            while True:
                session.add(entry(number=number, kind="cancelled"))
                await session.flush()
                if way == "statement":
                    await session.execute(text(f"SELECT pg_sleep({LONGEST})"))
                if way == "elsewhere":
                    await asyncio.sleep(LONGEST)
                await session.execute(text("SELECT pg_sleep(0.01)"))
                await session.commit()
                await session.execute(select(entry).where(entry.number == number))

    @app.get("/ok/<int:number>")
    async def ok(number: int) -> ResponseReturnValue:
        session = site.session()
        await session.scalars(select(entry).where(entry.number == number))
        session.add(entry(number=number, kind="ok"))
        await session.commit()
        return "ok"

    @app.get("/exception/<int:number>")
    async def exception(number: int) -> ResponseReturnValue:
        session = site.session()
        session.add(entry(number=number, kind="exception"))
        await session.flush()
        raise PlannedError

    @app.get("/disconnect/<int:number>")
    async def disconnect(number: int) -> ResponseReturnValue:
        await work_until_cancelled(site.session(), number)
        return "the client is still there"

    @app.get("/timeout/<int:number>")
    async def timeout(number: int) -> ResponseReturnValue:
        """Time out in the middle of something, and use the session once more."""
        session, chance = site.session(), random.Random(number)
        if chance.random() < 0.5:  # else the timeout may strike in the pool's queue
            session.add(entry(number=number, kind="timeout"))
            await session.flush()
        try:
            async with asyncio.timeout(chance.uniform(0, 0.1)):
                await session.execute(text(f"SELECT pg_sleep({LONGEST})"))
        except TimeoutError:
            if chance.random() < 0.5:
                await session.rollback()
                await session.scalars(select(entry).where(entry.number == number))
            return "timed out", 504
        return "no timeout"

    @app.get("/double-cancel/<int:number>")
    async def double_cancel(number: int) -> ResponseReturnValue:
        session, chance = site.session(), random.Random(number)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            counts["second cancel"] += task.cancel()

        if chance.random() < 0.75:  # else it may strike in the pool's queue
            await session.scalars(select(entry).where(entry.number == number))
        first, then = chance.uniform(0, 0.1), chance.choice([0, 0.001, 0.01])
        then *= chance.random()
        loop.call_later(first, task.cancel)
        # Either while the driver may still be busy with the first, or when that has
        # reached the view and the session is closed next.
        at_once = chance.random() < 0.5
        if at_once:
            loop.call_later(first + then, cancel)
        try:
            await work_until_cancelled(session, number)
        finally:
            if not at_once:
                loop.call_later(then, cancel)
        return "not cancelled"

    @app.get("/rollback/<int:number>")
    async def rollback(number: int) -> ResponseReturnValue:
        session = site.session()
        session.add(entry(number=number, kind="rollback"))
        await session.flush()
        await session.rollback()
        count = select(func.count()).where(entry.number == number)
        return ("kept", 409) if await session.scalar(count) else "rolled back"


# The process that serves it.


class Recorder(logging.Handler):
    """Counts what a process has to complain about."""

    _MARKS: ClassVar[dict[str, str]] = {
        "garbage collector is trying to clean up": "connection left to the collector",
        "was destroyed but it is pending": "task destroyed while pending",
        "never retrieved": "exception never retrieved",
        "never awaited": "coroutine never awaited",
    }

    def __init__(self) -> None:
        # If this level were higher, Quart would add a handler of its own.
        super().__init__(logging.WARNING)
        self.warnings: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.samples: dict[str, str] = {}
        """The first of each kind in full."""

    def install(self) -> None:
        logging.getLogger().addHandler(self)
        warnings.simplefilter("always")
        warnings.showwarning = self._on_warning
        sys.unraisablehook = self._on_unraisable

    def emit(self, record: logging.LogRecord) -> None:
        kind = self._kind(record.getMessage())
        if kind == self._MARKS["garbage collector is trying to clean up"]:
            return  # SQLAlchemy warns as well.
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PlannedError):
            return
        if kind is not None:
            self._count(self.warnings, kind, self._text(record))
        elif record.levelno >= logging.ERROR:
            what = type(error).__name__ if error else record.levelname.lower()
            self._count(self.errors, f"{what} ({record.name})", self._text(record))

    def _text(self, record: logging.LogRecord) -> str:
        return logging.Formatter().format(record)

    def _on_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        kind = self._kind(str(message))
        if kind is None and not issubclass(category, (ResourceWarning, SAWarning)):
            return  # A deprecation, say: no matter of leaks.
        place = f"{filename}:{lineno}: {message}"
        self._count(self.warnings, kind or category.__name__, place)

    def _on_unraisable(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        lines = [f"{unraisable.err_msg}: {unraisable.object!r}\n"]
        lines += traceback.format_exception(error)
        self._count(self.warnings, f"unraisable {type(error).__name__}", "".join(lines))

    def _kind(self, message: str) -> str | None:
        return next((k for mark, k in self._MARKS.items() if mark in message), None)

    def _count(self, counter: Counter[str], kind: str, sample: str) -> None:
        counter[kind] += 1
        self.samples.setdefault(kind, sample)


def serve(name: str, url: str, pipe: Connection) -> None:
    """Be the serving process: send the port, serve until told to stop, report."""
    recorder = Recorder()
    recorder.install()
    asyncio.run(_serve(SITES[name](url), pipe))
    gc.collect()
    pipe.send((recorder.warnings, recorder.errors, recorder.samples))


async def _serve(site: Site, pipe: Connection) -> None:
    counts: Counter[str] = Counter()
    engine = await site.engine()

    @event.listens_for(engine.sync_engine, "connect")
    def count_opened(*_: object) -> None:
        counts["opened"] += 1

    @event.listens_for(engine.sync_engine, "close")
    @event.listens_for(engine.sync_engine, "close_detached")
    def count_closed(*_: object) -> None:
        counts["closed"] += 1

    @site.app.get("/stats")
    async def stats() -> ResponseReturnValue:
        gc.collect()
        pool: Any = engine.pool
        return {
            "opened": counts["opened"],
            "known": counts["opened"] - counts["closed"],
            "in use": pool.checkedout(),
            "second cancel": counts["second cancel"],
            "tasks": len(asyncio.all_tasks()),
            "bytes": psutil.Process().memory_info().rss,
        }

    add_views(site, counts)
    config = HypercornConfig()
    config.bind = [f"{HOST}:0"]
    config.backlog = 1024
    config.errorlog = logging.getLogger("hypercorn.error")
    sockets = config.create_sockets()
    config.create_sockets = lambda: sockets  # type: ignore[method-assign]
    (listening,) = sockets.insecure_sockets
    listening.listen(config.backlog)  # so that the first client needs not try twice
    pipe.send(listening.getsockname()[1])
    await serve_asgi(site.app, config, shutdown_trigger=lambda: _told_to_stop(pipe))


async def _told_to_stop(pipe: Connection) -> None:
    with suppress(EOFError):  # The other process is gone.
        await asyncio.to_thread(pipe.recv)


# The process that asks.


class Client:
    """One HTTP/1.1 connection, as much of it as this program needs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        return self._streams

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body.

        :raises OSError: if the connection is lost.
        """
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode("latin-1").strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        except asyncio.IncompleteReadError:
            raise ConnectionResetError from None
        if headers.get("connection") == "close":
            self.close()
        return int(status.split()[1]), body

    def close(self) -> None:
        """End the connection as a client does that has what it wanted, or has not."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    def reset(self) -> None:
        """End the connection as a client does that is killed, with an RST."""
        if self._streams is not None:
            end: socket.socket = self._streams[1].get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._streams[1].transport.abort()
            self._streams = None


class Load:
    """Sends requests, and counts what became of them."""

    _ANSWERS: ClassVar[dict[str, tuple[int, bytes | None]]] = {
        "ok": (200, b"ok"),
        "exception": (500, None),
        "timeout": (504, b"timed out"),
        "double-cancel": (500, b""),  # of hypercorn, for an app that gives no answer
        "rollback": (200, b"rolled back"),
    }

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._usual = 0.05
        """Seconds that a request takes at present."""
        self.sent = 0
        self.results: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.committed: set[int] = set()
        """Numbers of the requests that said so."""

    async def send(
        self, numbers: Iterable[int], concurrency: int, until: float
    ) -> None:
        """Send a request for each number, unless it gets too late."""
        kinds = [KINDS[number % len(KINDS)] for number in numbers]
        todo = list(zip(numbers, kinds, strict=True))
        self._random.shuffle(todo)
        queue = iter(todo)
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(self._work(queue, until))

    async def _work(self, queue: Iterator[tuple[int, str]], until: float) -> None:
        client = Client(self._port)
        for number, kind in queue:
            self.sent += 1
            await self._ask(client, number, kind)
            if monotonic() > until:
                break
        client.close()

    async def _ask(self, client: Client, number: int, kind: str) -> None:
        began = monotonic()
        try:
            await client.connect()
            async with asyncio.timeout(self._patience(kind)):
                answer = await client.get(f"/{kind}/{number}")
        except TimeoutError:
            self._random.choice([client.close, client.reset])()
            if kind in {"disconnect", "double-cancel"}:
                self.results[kind] += 1
            else:
                self.unexpected[f"{kind}: no answer"] += 1
        except OSError as error:
            client.close()
            self.unexpected[f"{kind}: {type(error).__name__}"] += 1
        else:
            self._note(number, kind, *answer)
            if kind == "ok":
                self._usual += 0.05 * (monotonic() - began - self._usual)

    def _patience(self, kind: str) -> float:
        """Return for how many seconds to wait for an answer."""
        if kind == "disconnect":
            # The request waits for the pool then, or is past that.
            return self._random.uniform(0, 1.5 * self._usual)
        if kind == "double-cancel":
            # It has cancelled itself by then. Quart 0.23 gives no answer.
            return 2 * self._usual + 0.2
        return PATIENCE

    def _note(self, number: int, kind: str, status: int, body: bytes) -> None:
        expected_status, expected_body = self._ANSWERS.get(kind, (None, None))
        if status != expected_status or expected_body not in {None, body}:
            self.unexpected[f"{kind}: status {status}, {body[:40]!r}"] += 1
            return
        self.results[kind] += 1
        if kind == "ok":
            self.committed.add(number)


@dataclass(frozen=True)
class Plan:
    """What the command line asks for."""

    requests: int
    concurrency: int
    seconds: float
    seed: int


@dataclass
class Row:
    """What is found about one app on one driver."""

    site: str
    driver: str
    sent: int = 0
    results: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    second_cancels: int = 0
    opened: int = 0
    leaked: int = 0
    in_transaction: int = 0
    running: int = 0
    before: int = 0
    after: int = 0

    def is_clean(self) -> bool:
        numbers = self.leaked, self.in_transaction, self.running
        return not any(numbers) and not self.warnings and not self.unexpected

    def cells(self) -> dict[str, str]:
        """The row of the table."""
        return {
            "app": self.site,
            "driver": self.driver,
            "requests": str(self.sent),
            **{kind: str(self.results[kind]) for kind in KINDS},
            "unexpected": str(self.unexpected.total()),
            "2nd cancel": str(self.second_cancels),
            "opened": str(self.opened),
            "leaked": str(self.leaked),
            "in transaction": str(self.in_transaction),
            "running": str(self.running),
            "warnings": str(self.warnings.total()),
            "MB": f"{self.before / 1e6:.0f} -> {self.after / 1e6:.0f}",
        }


class Database:
    """The database of one app, seen past the app."""

    def __init__(self, server: Any, name: str) -> None:
        self._server = server
        self._name = name

    def __enter__(self) -> Self:
        self._server.make_empty(self._name)
        engine = create_engine(self.url("psycopg"))
        Base.metadata.create_all(engine)
        engine.dispose()
        self._connection = psycopg.connect(
            self.url("psycopg").replace("+psycopg", ""), autocommit=True
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()
        self._server.drop(self._name)

    def url(self, driver: str) -> str:
        url = self._server.url(self._name).set(drivername=f"postgresql+{driver}")
        text: str = url.render_as_string(hide_password=False)
        return text

    def states(self) -> Counter[str]:
        """Count the app's connections by what they do."""
        rows = self._connection.execute(
            "SELECT coalesce(state, 'starting') FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return Counter(state for (state,) in rows)

    def compare(self, committed: set[int]) -> Counter[str]:
        """Tell rows that were lost, and rows that should not be."""
        rows = self._connection.execute(
            "SELECT kind, number FROM entry WHERE kind <> 'cancelled'"
        ).fetchall()
        stored = {number for kind, number in rows if kind == "ok"}
        found = Counter(f"row of {kind}" for kind, _ in rows if kind != "ok")
        found["row without an answer"] = len(stored - committed)
        found["row lost"] = len(committed - stored)
        return +found


class App:
    """The serving process of one app."""

    def __init__(self, site: str, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(
            target=serve, args=(site, url, other_end), daemon=True
        )
        self._process.start()
        other_end.close()
        self.port: int = self._receive(30)

    def stop(self) -> tuple[Counter[str], Counter[str], dict[str, str]]:
        """End the process, and return its warnings, its errors, and a sample of each."""
        self._pipe.send("stop")
        complaints: tuple[Counter[str], Counter[str], dict[str, str]]
        complaints = self._receive(60)
        self._process.join(10)
        return complaints

    def kill(self) -> None:
        """See to it that the process has ended."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def _receive(self, seconds: float) -> Any:
        if not self._pipe.poll(seconds):
            raise SoakError(f"The app said nothing for {seconds} seconds.")
        try:
            return self._pipe.recv()
        except EOFError:
            raise SoakError("The app ended early; its error is above.") from None

    async def stats(self, client: Client) -> dict[str, int]:
        try:
            async with asyncio.timeout(PATIENCE):
                _, body = await client.get("/stats")
        except (OSError, TimeoutError) as error:
            raise SoakError(f"The app does not answer any more: {error!r}") from None
        numbers: dict[str, int] = json.loads(body)
        return numbers


class SoakError(Exception):
    """The program cannot go on."""


LEFT = ("leaked", "in transaction", "running", "tasks left")
"""What may be left of requests that have ended."""


async def at_rest(app: App, database: Database, tasks: int | None) -> dict[str, int]:
    """Wait until nothing is left of the requests, but not for ever; count what is.

    :param tasks: How many tasks the app has when it has no request.
    """
    client = Client(app.port)
    until = monotonic() + SETTLE
    while True:
        stats = await app.stats(client)
        states = database.states()
        stats["running"] = states["active"]
        stats["in transaction"] = sum(
            number for state, number in states.items() if "transaction" in state
        )
        unknown = states.total() - states["active"] - stats["known"]
        stats["leaked"] = stats["in use"] + max(0, unknown)
        stats["tasks left"] = 0 if tasks is None else max(0, stats["tasks"] - tasks)
        if monotonic() > until or not any(stats[what] for what in LEFT):
            client.close()
            return stats
        await asyncio.sleep(0.2)


async def soak(app: App, database: Database, row: Row, plan: Plan) -> None:
    """Send the requests, and write into the row what comes of them."""
    until = monotonic() + plan.seconds
    idle = await at_rest(app, database, None)
    warm_up = range(plan.requests, plan.requests + plan.requests // 10)
    committed: set[int] = set()
    for numbers in warm_up, range(plan.requests):
        load = Load(app.port, plan.seed)
        await load.send(numbers, plan.concurrency, until)
        committed |= load.committed
        row.unexpected += load.unexpected
        stats = await at_rest(app, database, idle["tasks"])
        row.before, row.after = row.after, stats["bytes"]
    row.sent, row.results = load.sent, load.results
    row.second_cancels, row.opened = stats["second cancel"], stats["opened"]
    row.leaked, row.running = stats["leaked"], stats["running"]
    row.in_transaction = stats["in transaction"]
    row.unexpected += database.compare(committed)
    row.unexpected["task that never ended"] += stats["tasks left"]


def make_row(server: Any, site: str, driver: str, plan: Plan) -> Row:
    row = Row(site, driver)
    with Database(server, f"dualchemy_soak_{os.getpid()}") as database:
        app = App(site, database.url(driver))
        try:
            asyncio.run(soak(app, database, row, plan))
            row.warnings, errors, row.samples = app.stop()
            row.unexpected = +(row.unexpected + errors)
        finally:
            app.kill()
    return row


def show(rows: Sequence[Row]) -> None:
    """Print the table, and what its unwelcome numbers are made of."""
    cells = [row.cells() for row in rows]
    lines = [list(cells[0]), *(list(row.values()) for row in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("  ".join(map(str.rjust, line, widths)))
    for row in rows:
        for title in ("unexpected", "warnings"):
            counter: Counter[str] = getattr(row, title)
            for kind, number in counter.most_common():
                print(f"{row.site}, {row.driver}, {title}: {number} x {kind}")


def start_server(url: str | None) -> Any:
    """Return the server that the tests use."""
    try:
        databases: Any = importlib.import_module("tests.support.databases")
    except ModuleNotFoundError as error:
        raise SoakError(
            f"{error}. Run this from the root of the project, with the dependency"
            " group 'tests' installed."
        ) from None
    if url is not None:
        os.environ[databases.POSTGRESQL_VARIABLE] = url
    try:
        return databases.PostgreSQL()
    except (psycopg.Error, ArgumentError) as error:
        raise SoakError(f"There is no such PostgreSQL server: {error}") from None


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def postgresql(text: str) -> str:
    try:
        name = make_url(text).get_backend_name()
    except ArgumentError:
        name = None
    if name != "postgresql":
        raise argparse.ArgumentTypeError(
            "expected a URL such as postgresql://user:password@host/database"
        )
    return text


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--requests", type=positive, default=20_000, help="for each row (%(default)s)")
    add("--concurrency", type=positive, default=200, help="at a time (%(default)s)")
    add(
        "--seconds",
        type=positive,
        default=900,
        help="after which a row sends no more requests (%(default)s)",
    )
    add("--seed", type=int, default=1, help="for another order of requests")
    add("--app", choices=SITES, help="this row only")
    add("--driver", choices=DRIVERS, help="this row only")
    add("--samples", action="store_true", help="print a log entry of each kind in full")
    add(
        "--url",
        type=postgresql,
        help="a PostgreSQL server to create a database on; by default the one that"
        " DUALCHEMY_TEST_POSTGRESQL names, else a private one",
    )
    arguments = parser.parse_args()
    plan = Plan(
        arguments.requests, arguments.concurrency, arguments.seconds, arguments.seed
    )
    sites = [arguments.app] if arguments.app else list(SITES)
    drivers = [arguments.driver] if arguments.driver else list(DRIVERS)
    rows: list[Row] = []
    # SIGTERM ends the program as Ctrl-C does, through the finally clauses.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        server = start_server(arguments.url)
        try:
            for driver in drivers:
                for site in sites:
                    began = monotonic()
                    rows.append(make_row(server, site, driver, plan))
                    passed = f"{monotonic() - began:.0f} s"
                    print(f"{site}, {driver}: {passed}", file=sys.stderr)
        finally:
            server.stop()
    except (SoakError, psycopg.Error) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    show(rows)
    if arguments.samples:
        for row in rows:
            for kind, sample in row.samples.items():
                print(f"\n{row.site}, {row.driver}: {kind}\n{sample}")
    return 0 if all(row.is_clean() for row in rows if row.site == "Dualchemy") else 1


if __name__ == "__main__":
    sys.exit(main())
