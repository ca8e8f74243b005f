"""Who gets a connection when all are in use: whoever waits longest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as SATimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool, StaticPool
from support.apps import Site, resolve
from support.databases import Backend

from dualchemy import PoolTimeoutError

FULL = {"pool_size": 1, "max_overflow": 0}


@pytest.fixture
def make_pooled(backend: Backend, make_site: Any) -> Callable[..., Site]:
    """Make an app of a framework with options for its pool."""

    def make(framework: str, **options: Any) -> Site:
        site: Site = make_site(
            framework,
            SQLALCHEMY_DATABASE_URI=backend.url,
            SQLALCHEMY_ENGINE_OPTIONS={**FULL, "pool_timeout": 10, **options},
        )
        return site

    return make


@pytest.mark.backends("sqlite")
@pytest.mark.parametrize(
    ("bind", "path"),
    [(None, "SQLALCHEMY_ENGINE_OPTIONS"), ("reports", 'SQLALCHEMY_BINDS["reports"]')],
)
async def test_timeout_names_the_options(
    framework: str, backend: Backend, make_site: Any, bind: str | None, path: str
) -> None:
    options = {"pool_size": 1, "max_overflow": 1, "pool_timeout": 0}
    site = make_site(
        framework,
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_ENGINE_OPTIONS=options,
        SQLALCHEMY_BINDS={"reports": {"url": backend.url, **options}},
    )
    async with site.context():
        for _ in range(2):  # also once the pool was replaced
            engine = site.db.engines[bind]
            held = [await resolve(engine.connect()) for _ in range(2)]
            with pytest.raises(PoolTimeoutError) as caught:
                await resolve(engine.connect())
            assert str(caught.value).startswith(
                f"{path}: all 2 connections of the pool ('pool_size' 1, 'max_overflow'"
                " 1) were in use, and none came free within 0 seconds"
                " ('pool_timeout'). Close sessions sooner, above all before waiting for"
                " something else, or raise these options."
            )
            assert isinstance(caught.value, SATimeoutError)
            for connection in held:
                await resolve(connection.close())
            await resolve(site.db.dispose())


@pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
class TestTurns:
    async def test_in_order_on_the_async_api(self, make_pooled: Any) -> None:
        site = make_pooled("quart")
        order: list[int] = []

        async def visit(number: int) -> None:
            async with site.db.aio.sessionmaker() as session:
                await session.execute(text("SELECT 1"))
                order.append(number)
                await asyncio.sleep(0)

        async with site.context():
            held = await site.db.engine.connect()
            tasks = [asyncio.create_task(visit(number)) for number in range(20)]
            await asyncio.sleep(0.01)
            await held.close()
            await asyncio.gather(*tasks)
        assert order == list(range(20))

    async def test_newcomer_does_not_overtake(self, make_pooled: Any) -> None:
        """It asks in the very turn of the event loop in which one comes free."""
        site = make_pooled("quart")
        order: list[str] = []

        async def visit(name: str) -> None:
            async with site.db.engine.connect():
                order.append(name)

        async with site.context():
            held = await site.db.engine.connect()
            waiting = asyncio.create_task(visit("waits"))
            await asyncio.sleep(0.01)
            await held.close()
            await visit("comes")
            await waiting
        assert order == ["waits", "comes"]

    async def test_cancelled_turn_goes_to_the_next(self, make_pooled: Any) -> None:
        site = make_pooled("quart", pool_timeout=5)

        async def visit() -> str:
            async with site.db.engine.connect():
                return "served"

        async with site.context():
            for give_up in range(3):
                held = await site.db.engine.connect()
                tasks = [asyncio.create_task(visit()) for _ in range(3)]
                await asyncio.sleep(0.01)
                closing = asyncio.create_task(held.close())
                # Before, while and after its turn comes.
                while give_up and site.db.engine.pool.checkedout():
                    await asyncio.sleep(0)
                    give_up -= 1
                tasks[0].cancel()
                async with asyncio.timeout(4):
                    await closing
                    found = await asyncio.gather(*tasks, return_exceptions=True)
                assert found[1:] == ["served", "served"]
                assert site.db.engine.pool.checkedout() == 0

    async def test_in_order_on_the_sync_api(self, make_pooled: Any) -> None:
        site = make_pooled("flask")
        order: list[int] = []

        def visit(number: int, asked: threading.Event) -> None:
            with site.app.app_context():
                asked.set()
                site.db.session.execute(text("SELECT 1"))
                order.append(number)

        with site.app.app_context():
            held = site.db.engine.connect()
            threads = []
            for number in range(10):
                asked = threading.Event()
                threads.append(threading.Thread(target=visit, args=(number, asked)))
                threads[-1].start()
                asked.wait()
                await asyncio.sleep(0.02)
            held.close()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            assert order == list(range(10))
            assert site.db.engine.pool.checkedout() == 0

    async def test_many_for_few(self, framework: str, make_pooled: Any) -> None:
        """Everybody is served, and nothing is left."""
        site = make_pooled(framework, pool_size=2, max_overflow=1)
        served: list[int] = []

        async def visit(number: int) -> None:
            async with site.context():
                await resolve(site.db.session.execute(text("SELECT 1")))
                served.append(number)

        if site.is_async:
            await asyncio.gather(*(visit(number) for number in range(200)))
        else:
            await asyncio.gather(
                *(
                    asyncio.to_thread(asyncio.run, visit(number))
                    for number in range(200)
                )
            )
        assert sorted(served) == list(range(200))
        async with site.context():
            assert site.db.engine.pool.checkedout() == 0
            assert site.db.engine.pool.checkedin() <= 3


@pytest.mark.backends("postgresql", "mariadb")
async def test_place_of_a_connection_that_is_closed_goes_to_who_waits(
    make_pooled: Any,
) -> None:
    """One too many for the pool's size; somebody begins to wait while it is closed."""
    site = make_pooled("quart", max_overflow=1, pool_timeout=5)
    async with site.context():
        engine = site.db.engine
        overflow, pooled = await engine.connect(), await engine.connect()
        await pooled.close()
        closing = asyncio.create_task(overflow.close())
        while engine.pool.checkedin() and not closing.done():
            await asyncio.sleep(0)
            if engine.pool.checkedout() and engine.pool.checkedin():
                pooled = await engine.connect()
        waiting = asyncio.create_task(engine.connect().start())
        await closing
        async with asyncio.timeout(4):
            await (await waiting).close()
        await pooled.close()
        assert engine.pool.checkedout() == 0


async def test_failed_connect_makes_room(framework: str, make_site: Any) -> None:
    """Those that wait for a place try by themselves at once: none waits in vain."""
    site = make_site(
        framework,
        SQLALCHEMY_DATABASE_URI="postgresql://127.0.0.1:1/nothing",
        SQLALCHEMY_ENGINE_OPTIONS={**FULL, "pool_timeout": 20},
    )

    async def visit() -> BaseException | None:
        async with site.context():
            try:
                await resolve(site.db.session.execute(text("SELECT 1")))
            except Exception as error:  # noqa: BLE001 - it is what is asked for
                return error
        return None

    async with asyncio.timeout(10):
        if site.is_async:
            errors = await asyncio.gather(*(visit() for _ in range(10)))
        else:
            errors = await asyncio.gather(
                *(asyncio.to_thread(asyncio.run, visit()) for _ in range(10))
            )
    assert len(errors) == 10
    assert all(error is not None for error in errors)
    assert not any(isinstance(error, PoolTimeoutError) for error in errors)
    async with site.context():
        assert site.db.engine.pool.checkedout() == 0


@pytest.mark.backends("sqlite", "postgresql")
@pytest.mark.parametrize("lifo", [False, True])
async def test_use_lifo(framework: str, make_pooled: Any, lifo: bool) -> None:
    site = make_pooled(framework, pool_size=3, pool_use_lifo=lifo)
    async with site.context():
        engine = site.db.engine
        held = [await resolve(engine.connect()) for _ in range(3)]
        raw = [
            (await resolve(each.get_raw_connection())) if site.is_async else each
            for each in held
        ]
        drivers = [
            (each if site.is_async else each.connection).driver_connection
            for each in raw
        ]
        for connection in held:
            await resolve(connection.close())
        again = await resolve(engine.connect())
        wrapped = (
            await again.get_raw_connection() if site.is_async else again.connection
        )
        assert wrapped.driver_connection is drivers[-1 if lifo else 0]
        await resolve(again.close())


@pytest.mark.backends("sqlite")
@pytest.mark.parametrize("poolclass", [NullPool, StaticPool])
async def test_another_pool_is_left_as_it_is(
    framework: str, backend: Backend, make_site: Any, poolclass: type
) -> None:
    site = make_site(
        framework,
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_ENGINE_OPTIONS={"poolclass": poolclass},
    )
    async with site.context():
        assert type(site.db.engine.pool) is poolclass
        await resolve(site.db.session.execute(text("SELECT 1")))


@pytest.mark.backends("sqlite")
async def test_pool_is_a_queue_pool_to_sqlalchemy(site: Site) -> None:
    async with site.context():
        assert isinstance(site.db.engine.pool, QueuePool)
        is_async = isinstance(site.db.engine.pool, AsyncAdaptedQueuePool)
        assert is_async is site.is_async
        name = "AsyncAdaptedQueuePool" if is_async else "QueuePool"
        assert site.db.engine.pool.logger.name == f"sqlalchemy.pool.impl.{name}"
