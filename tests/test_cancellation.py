"""A request is cancelled at each of its awaits in turn. Nothing leaks, nothing lies."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import pytest
from sqlalchemy import String, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site, serve
from support.databases import Backend

from dualchemy import models_committed

servers = pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")


SLOW_COMMITS = (
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END'",
    "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON visit"
    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
)


class Interrupt:
    """Awaits a coroutine, and does something when it waits for the n-th time, and some
    times after.

    :param late: Do it only when what it waits for is there, but before it is told so.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        at: range,
        act: Callable[[], object],
        *,
        late: bool = False,
    ) -> None:
        self._coroutine = coroutine
        self._at = at
        self._act = act
        self._late = late
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        iterator = self._coroutine.__await__()
        error: BaseException | None = None
        while True:
            try:
                waiting_for = iterator.throw(error) if error else next(iterator)
            except StopIteration as stop:
                return stop.value
            self.waits += 1
            if self.waits in self._at:
                if self._late and waiting_for is not None:
                    waiting_for.add_done_callback(lambda _: self._act())
                else:
                    self._act()
            error = None
            try:
                yield waiting_for
            except BaseException as caught:  # noqa: BLE001 - passed on
                error = caught


async def cancelled(
    driven: Coroutine[Any, Any, Any], at: int, times: int, *, late: bool = False
) -> int:
    """Run a coroutine, and cancel its task at the n-th await.

    :return: How often it waited.
    """
    interrupt: Interrupt

    async def run() -> Any:
        nonlocal interrupt
        task = asyncio.current_task()
        assert task is not None
        interrupt = Interrupt(driven, range(at, at + times), task.cancel, late=late)
        return await interrupt

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    assert task.cancelled() is (interrupt.waits >= at), f"at await {at}: {task!r}"
    return interrupt.waits


async def cancelled_late(driven: Coroutine[Any, Any, Any], at: int, times: int) -> int:
    """:func:`cancelled`, at the moment at which what is awaited has come: it is lost."""
    return await cancelled(driven, at, times, late=True)


async def timed_out(driven: Coroutine[Any, Any, Any], at: int, times: int) -> int:
    """Run a coroutine within an ``asyncio.timeout`` that expires at the n-th await.

    One that comes at the very end, when all is done, may be told as one or not; but
    nothing of it strikes behind the block.
    """
    interrupt: Interrupt

    async def run() -> Any:
        nonlocal interrupt
        try:
            async with asyncio.timeout(None) as timeout:
                interrupt = Interrupt(
                    driven, range(at, at + 1), lambda: timeout.reschedule(0)
                )
                await interrupt
        finally:
            await asyncio.sleep(0)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    assert not task.cancelled(), f"at await {at}"
    expected = {TimeoutError, type(None)} if interrupt.waits >= at else {type(None)}
    assert type(task.exception()) in expected, f"at await {at}: {task!r}"
    return interrupt.waits


async def settled(site: Site) -> int:
    """The number of connections in use, once what was begun has ended."""
    pools = [engine.pool for engine in site.db.aio.engines.values()]
    for _ in range(1000):
        if not any(pool.checkedout() for pool in pools):
            break
        await asyncio.sleep(0.01)
    return sum(pool.checkedout() for pool in pools)


@pytest.fixture
def make_visited(
    backend: Backend, make_site: Any, make_database: Any
) -> Callable[..., Any]:
    """Make an app with a table of visits; takes options of the engine."""

    async def make(**options: Any) -> Site:
        options = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 5, **options}
        site: Site = make_site(
            "quart",
            SQLALCHEMY_DATABASE_URI=backend.url,
            SQLALCHEMY_ENGINE_OPTIONS=options,
            SQLALCHEMY_BINDS={
                "other": {"url": make_database(backend.name, "other"), **options}
            },
            SQLALCHEMY_TRACK_MODIFICATIONS=True,
        )

        class Visit(site.db.Model):  # type: ignore[name-defined]
            id: Mapped[int] = mapped_column(primary_key=True)
            who: Mapped[str] = mapped_column(String(20))

        class Elsewhere(site.db.Model):  # type: ignore[name-defined]
            __bind_key__ = "other"
            id: Mapped[int] = mapped_column(primary_key=True)

        site.db.Visit, site.db.Elsewhere = Visit, Elsewhere
        async with site.context():
            await site.db.create_all()
        return site

    return make


@pytest.fixture
def count_transactions(backend: Backend, request: Any) -> Callable[[], Awaitable[int]]:
    """Count the transactions that stay open on the server."""

    async def count() -> int:
        if not backend.is_server:
            return 0  # one that is open holds a lock, and the next visit fails
        server = request.getfixturevalue("server")
        database = make_url(backend.url).database
        # MariaDB looks every five seconds whether one that sleeps has gone away.
        for _ in range(600):
            if server.open_transactions(database) == 0:
                # Asked again, it may find a connection that was given up begin: it does
                # so in a transaction, and then notices that nobody is there.
                return 0
            await asyncio.sleep(0.01)
        return int(server.open_transactions(database))

    return count


async def read(site: Site) -> None:
    await site.db.session.scalar(select(func.count()).select_from(site.db.Visit))


async def write(site: Site) -> None:
    await site.db.session.scalar(select(func.count()).select_from(site.db.Visit))
    site.db.session.add(site.db.Visit(who="ada"))
    await site.db.session.flush()
    await site.db.session.commit()
    assert (await site.db.session.scalars(select(site.db.Visit.who))).first() == "ada"


async def fetch(site: Site) -> None:
    site.db.session.add_all([site.db.Visit(who="grace") for _ in range(3)])
    await site.db.session.flush()
    found = await site.db.session.stream_scalars(
        select(site.db.Visit.who).execution_options(yield_per=1)
    )
    assert [who async for who in found][:1]
    await site.db.session.rollback()


async def nest(site: Site) -> None:
    session = site.db.session
    async with session.begin():
        session.add(site.db.Visit(who="ada"))
        async with session.begin_nested():
            session.add(site.db.Visit(who="grace"))


async def use_two_binds(site: Site) -> None:
    for model in (site.db.Visit, site.db.Elsewhere):
        await site.db.session.scalar(select(func.count()).select_from(model))


@pytest.mark.parametrize(
    ("interrupt", "times"),
    [(cancelled, 1), (cancelled, 2), (cancelled_late, 1), (timed_out, 1)],
    ids=["once", "twice", "late", "timeout"],
)
@pytest.mark.parametrize("work", [read, write, fetch, nest, use_two_binds])
async def test_interrupted_at_each_await(
    make_visited: Any,
    count_transactions: Any,
    work: Callable[[Site], Awaitable[None]],
    interrupt: Any,
    times: int,
    caplog: Any,
) -> None:
    site: Site = await make_visited()
    committed: list[object] = []

    def note(app: object, changes: list[object]) -> None:
        committed.extend(changes)

    @site.app.get("/")
    async def view() -> str:
        await work(site)
        return "done"

    async def rows() -> int:
        async with site.context():
            count = select(func.count()).select_from(site.db.Visit)
            return int(await site.db.session.scalar(count) or 0)

    at, finished = 0, False
    with models_committed.connected_to(note):
        while not finished:
            at += 1
            committed.clear()
            before = await rows()
            async with site.context():
                await site.db.dispose()  # so that connecting is among the awaits
            request = site.app.test_request_context("/").request
            waits = await interrupt(site.app.handle_request(request), at, times)
            finished = waits < at
            async with site.context():
                assert await settled(site) == 0, f"leaked at await {at}"
            assert await count_transactions() == 0, (
                f"left in a transaction at await {at}"
            )
            # What was reported as committed is there, and nothing else.
            assert await rows() - before == len(committed), f"at await {at}"
    assert at > 4
    gc.collect()
    assert "was destroyed but it is pending" not in caplog.text


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
async def test_interrupted_while_others_hold_the_pool(
    make_visited: Any, count_transactions: Any, times: int
) -> None:
    """The turn of one that is cancelled goes to the next."""
    site: Site = await make_visited(pool_size=1)

    async def visit() -> None:
        async with site.context():
            await read(site)

    at, finished = 0, False
    while not finished:
        at += 1
        async with site.context():
            await site.db.dispose()
            holder = site.db.aio.sessionmaker()
            await holder.connection()
            first = asyncio.create_task(cancelled(visit(), at, times))
            await asyncio.sleep(0.001)
            second = asyncio.create_task(visit())
            await asyncio.sleep(0.001)
            await holder.close()
            async with asyncio.timeout(4):  # less than the pool's own
                finished = await first < at
                await second
            assert await settled(site) == 0, f"leaked at await {at}"
        assert await count_transactions() == 0
    assert at > 4


@servers
async def test_failing_or_cancelled_connect_gives_way_to_the_next(
    make_visited: Any,
) -> None:
    """The place in the pool is free again, and one that waits for it learns of it."""
    site: Site = await make_visited(pool_size=1)

    async def visit() -> None:
        async with site.context():
            await read(site)

    for at in (1, 2, 3):
        async with site.context():
            await site.db.dispose()
            connecting = asyncio.create_task(cancelled(visit(), at, 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            async with asyncio.timeout(4):
                await asyncio.gather(visit(), connecting)


class Traced:
    """A proxy, as packages that trace statements put before a connection."""

    def __init__(self, connection: Any) -> None:
        vars(self)["_connection"] = connection

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._connection)

    @__class__.setter
    def __class__(self, cls: type) -> None:
        self._connection.__class__ = cls

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_connection"], name)


async def traced(dsn: str) -> Any:
    return Traced(await asyncpg.connect(dsn))


async def of_ones_own_class(dsn: str) -> Any:
    class Connection(asyncpg.Connection):
        async def commit(self) -> None:
            """Another thing than that of other drivers."""

    return await asyncpg.connect(dsn, connection_class=Connection)


async def of_a_strict_class(dsn: str) -> Any:
    class Connection(asyncpg.Connection):
        def __init_subclass__(cls, *, name: str) -> None:
            """Refuse a subclass without a name."""

    return await asyncpg.connect(dsn, connection_class=Connection)


class TestCommit:
    """Its outcome is known, whatever is cancelled."""

    @pytest.mark.backends("postgresql", "postgresql-psycopg")
    async def test_that_takes_its_time(self, make_visited: Any) -> None:
        """A driver's own timeouts, as psycopg had before 3.3, are no cancellation."""
        site: Site = await make_visited()
        async with site.context():
            for statement in SLOW_COMMITS:
                await site.db.session.execute(text(statement))
            await site.db.session.commit()
            site.db.session.add(site.db.Visit(who="ada"))
            await site.db.session.commit()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    @pytest.mark.backends("postgresql", "postgresql-psycopg")
    @pytest.mark.parametrize("way", ["commit", "run_sync", "begin"])
    async def test_that_was_sent_is_done_and_told(
        self, make_visited: Any, way: str, caplog: Any
    ) -> None:
        """A deferred trigger makes the commit take its time; it is cancelled meanwhile."""
        site: Site = await make_visited()
        async with site.context():
            for statement in SLOW_COMMITS:
                await site.db.session.execute(text(statement))
            await site.db.session.commit()
        told: list[object] = []

        async def note(app: object, changes: list[object]) -> None:
            await asyncio.sleep(0.01)
            told.extend(changes)

        async def note_too(app: object, changes: list[object]) -> None:
            await asyncio.sleep(0.01)
            told.extend(changes)

        async def work() -> None:
            async with site.context():
                site.db.session.add(site.db.Visit(who="ada"))
                await site.db.session.flush()
                loop = asyncio.get_running_loop()
                task = asyncio.current_task()
                assert task is not None
                loop.call_later(0.1, task.cancel, "gone")
                loop.call_later(0.15, task.cancel)
                if way == "commit":
                    await site.db.session.commit()
                elif way == "run_sync":
                    await site.db.session().run_sync(lambda session: session.commit())
                reached.append("after the commit")
                await asyncio.sleep(0)
                reached.append("after the next await")

        async def work_in_a_block() -> None:
            async with site.context(), site.db.session.begin():
                site.db.session.add(site.db.Visit(who="ada"))
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_later(0.1, task.cancel, "gone")
            await asyncio.sleep(0)
            reached.append("after the next await")

        reached: list[str] = []
        with (
            models_committed.connected_to(note),
            models_committed.connected_to(note_too),
        ):
            task = asyncio.create_task(work_in_a_block() if way == "begin" else work())
            await asyncio.wait([task])
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("gone",)  # by which anyio knows its own
        assert len(told) == 2  # by both receivers
        assert "after the next await" not in reached
        assert "Exception during reset" not in caplog.text
        async with site.context():
            # The connection was not thrown away either.
            assert site.db.engine.pool.checkedin() == 1
            count = select(func.count()).select_from(site.db.Visit)
            assert await site.db.session.scalar(count) == 1
            assert await settled(site) == 1

    @pytest.mark.backends("postgresql")
    @pytest.mark.parametrize("connect", [traced, of_ones_own_class, of_a_strict_class])
    async def test_of_a_connection_that_is_not_the_drivers_own(
        self, backend: Backend, make_site: Any, connect: Any
    ) -> None:
        dsn = make_url(backend.url).set(drivername="postgresql")
        creator = partial(connect, dsn.render_as_string(hide_password=False))
        site: Site = make_site(
            "quart",
            SQLALCHEMY_DATABASE_URI=backend.url,
            SQLALCHEMY_ENGINE_OPTIONS={"async": {"async_creator": creator}},
        )

        class Visit(site.db.Model):  # type: ignore[name-defined]
            id: Mapped[int] = mapped_column(primary_key=True)

        async def work() -> None:
            async with site.context():
                site.db.session.add(Visit())
                await site.db.session.flush()
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_later(0.1, task.cancel)
                await site.db.session.commit()

        async with site.context():
            await site.db.create_all()
            for statement in SLOW_COMMITS:
                await site.db.session.execute(text(statement))
            await site.db.session.commit()
        task = asyncio.create_task(work())
        await asyncio.wait([task])
        assert task.cancelled()
        async with site.context():
            assert await site.db.session.scalar(select(func.count(Visit.id))) == 1

    @pytest.mark.backends("sqlite")
    async def test_of_a_proxy_that_passes_its_class_on(
        self, backend: Backend, make_site: Any, tmp_path: Path
    ) -> None:
        """The connection behind it does not become one of the proxy's class."""

        async def creator() -> Any:
            return Traced(await aiosqlite.connect(tmp_path / "traced.db"))

        site: Site = make_site(
            "quart",
            SQLALCHEMY_DATABASE_URI=backend.url,
            SQLALCHEMY_ENGINE_OPTIONS={"async": {"async_creator": creator}},
        )
        async with site.context():
            await site.db.session.execute(text("CREATE TABLE visit (id INTEGER)"))
            await site.db.session.execute(text("INSERT INTO visit VALUES (7)"))
            await site.db.session.commit()
        async with site.context():
            assert await site.db.session.scalar(text("SELECT id FROM visit")) == 7

    @pytest.mark.backends("postgresql", "postgresql-psycopg")
    async def test_cancellation_stays_within_its_timeout(
        self, make_visited: Any
    ) -> None:
        """Though the commit is the last thing that is awaited in the block."""
        site: Site = await make_visited()
        async with site.context():
            for statement in SLOW_COMMITS:
                await site.db.session.execute(text(statement))
            await site.db.session.commit()
            site.db.session.add(site.db.Visit(who="ada"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await site.db.session.commit()
            await asyncio.sleep(0)
            count = select(func.count()).select_from(site.db.Visit)
            assert await site.db.session.scalar(count) == 1

    @pytest.mark.backends("postgresql", "postgresql-psycopg")
    async def test_cancellation_is_put_off_to_its_end_and_no_further(
        self, make_visited: Any
    ) -> None:
        """What a function of ``run_sync`` does after a commit is cancelled as ever."""
        site: Site = await make_visited()
        async with site.context():
            for statement in SLOW_COMMITS:
                await site.db.session.execute(text(statement))
            await site.db.session.commit()

        def commit_and_go_on(session: Any) -> None:
            session.add(site.db.Visit(who="ada"))
            session.commit()
            session.execute(text("SELECT pg_sleep(20)"))

        async def work() -> None:
            async with site.context():
                await site.db.session().run_sync(commit_and_go_on)

        task = asyncio.create_task(work())
        await asyncio.sleep(0.15)
        task.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait([task])
        assert task.cancelled()
        async with site.context():
            count = select(func.count()).select_from(site.db.Visit)
            assert await site.db.session.scalar(count) == 1

    @pytest.mark.backends("postgresql", "postgresql-psycopg")
    async def test_without_an_answer_does_not_hold_the_task_for_ever(
        self, make_visited: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr("dualchemy.shielding.GRACE", 0.2)
        site: Site = await make_visited()
        async with site.context():
            for statement in (
                "CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'",
                "CREATE CONSTRAINT TRIGGER stuck AFTER INSERT ON visit"
                " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stuck()",
            ):
                await site.db.session.execute(text(statement))
            await site.db.session.commit()

        async def work() -> None:
            async with site.context():
                site.db.session.add(site.db.Visit(who="ada"))
                await site.db.session.commit()

        task = asyncio.create_task(work())
        await asyncio.sleep(0.1)
        task.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([task])
        assert task.cancelled()
        async with site.context():
            assert await settled(site) == 0
            await read(site)


@pytest.mark.backends("postgresql", "postgresql-psycopg")
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_server_stops_a_statement_that_is_cancelled_twice(
    make_visited: Any, backend: Backend, server: Any, turns: int
) -> None:
    """The second cancellation does not cut off the word that ends the statement."""
    site: Site = await make_visited()
    database = make_url(backend.url).database

    async def work() -> None:
        async with site.context():
            await site.db.session.execute(text("SELECT pg_sleep(20)"))

    task = asyncio.create_task(work())
    while not server.open_transactions(database):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    task.cancel()
    for _ in range(turns):  # of the event loop
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    async with asyncio.timeout(5):
        while server.open_transactions(database):
            await asyncio.sleep(0.01)


@pytest.mark.backends("postgresql", "postgresql-psycopg")
@pytest.mark.parametrize("turns", range(1, 6))
async def test_statement_is_not_sent_after_its_cancellation(
    make_visited: Any, backend: Backend, server: Any, turns: int
) -> None:
    """Not even if that met the BEGIN before it."""
    site: Site = await make_visited()
    database = make_url(backend.url).database

    async def work(sql: str) -> None:
        async with site.context():
            await site.db.session.execute(text(sql))

    await work("SELECT 1")
    task = asyncio.create_task(work("SELECT pg_sleep(20)"))
    for _ in range(turns):  # of the event loop
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(3):
        await asyncio.wait([task])
        while server.open_transactions(database):
            await asyncio.sleep(0.01)
    assert task.cancelled()


@servers
async def test_client_that_goes_away(
    make_visited: Any, count_transactions: Any, backend: Backend
) -> None:
    """Over a real server: the request is cancelled, and leaves nothing behind."""
    site: Site = await make_visited()
    sleep = "SELECT sleep(20)" if backend.name == "mariadb" else "SELECT pg_sleep(20)"
    in_view = asyncio.Event()
    ended = asyncio.Event()

    @site.app.get("/")
    async def view() -> str:
        site.db.session.add(site.db.Visit(who="ada"))
        await site.db.session.flush()
        in_view.set()
        try:
            await site.db.session.execute(text(sleep))
        finally:
            ended.set()
        return "slept"

    async with serve(site.app) as client:
        for _ in range(3):
            in_view.clear()
            ended.clear()
            _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n")
            await in_view.wait()
            writer.close()
            await writer.wait_closed()
            async with asyncio.timeout(10):
                await ended.wait()
        async with site.context():
            assert await settled(site) == 0
            count = select(func.count()).select_from(site.db.Visit)
            assert await site.db.session.scalar(count) == 0
    assert await count_transactions() == 0


@pytest.mark.backends("postgresql", "sqlite")
async def test_cancelled_while_its_context_is_pushed(
    make_visited: Any, count_transactions: Any
) -> None:
    """Nobody pops a context whose push was cancelled, so nobody ends it."""
    site: Site = await make_visited()
    interface = site.app.session_interface

    class Interface(type(interface)):  # type: ignore[misc]
        async def open_session(self, *args: Any) -> Any:
            await read(site)
            await asyncio.sleep(60)

    site.app.session_interface = Interface()

    async def visit() -> None:
        async with site.request():
            raise AssertionError

    task = asyncio.create_task(visit())
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    del task
    gc.collect()
    async with site.context():
        assert await settled(site) == 0
    assert await count_transactions() == 0
