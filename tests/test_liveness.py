"""An idle pool survives what happens to a database server; a busy one is not slowed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool
from support.apps import Site, resolve
from support.databases import Backend

pytestmark = pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")


def make(make_site: Any, framework: str, backend: Backend, **options: Any) -> Site:
    site: Site = make_site(
        framework,
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 3, **options},
    )
    return site


def count_pings(site: Site) -> list[object]:
    """Collect the pings of the framework's engine."""
    engine = getattr(site.db.engine, "sync_engine", site.db.engine)
    pings: list[object] = []
    ping = engine.dialect.do_ping

    def counted(connection: Any) -> bool:
        pings.append(connection)
        return bool(ping(connection))

    engine.dialect.do_ping = counted
    return pings


async def use(site: Site, connections: int = 1) -> None:
    """Take connections from the pool, all at once, and give them back."""
    sessions = [site.api.sessionmaker() for _ in range(connections)]
    for session in sessions:
        result = await resolve(session.execute(text("SELECT 1")))
        assert result.scalar() == 1
    for session in sessions:
        await resolve(session.close())


class OwnPool(QueuePool):
    """A user's."""


class OwnAsyncPool(AsyncAdaptedQueuePool):
    """A user's."""


@pytest.mark.parametrize(
    "pools",
    [{}, {"sync": {"poolclass": OwnPool}, "async": {"poolclass": OwnAsyncPool}}],
    ids=["default", "own"],
)
async def test_idle_pool_survives_the_loss_of_its_connections(
    framework: str, backend: Backend, make_site: Any, server: Any, pools: Any
) -> None:
    site = make(make_site, framework, backend, pool_ping_after=0, **pools)
    async with site.context():
        await use(site, 3)
        server.disconnect_all(make_url(backend.url).database)
        pings = count_pings(site)
        await use(site, 3)
        # The first that is found dead condemns the others, unpinged.
        assert len(pings) == 1


@pytest.mark.backends("postgresql", "postgresql-psycopg")
async def test_idle_pool_survives_a_restart_of_the_server(
    framework: str, backend: Backend, make_site: Any, server: Any
) -> None:
    if not server.is_private:
        pytest.skip("a server that the environment names is not ours to restart")
    site = make(make_site, framework, backend)
    async with site.context():
        await use(site, 3)
        await asyncio.to_thread(server.restart)
        await asyncio.sleep(1.1)  # the default window
        await asyncio.gather(*(use(site) for _ in range(3)))


@pytest.mark.backends("postgresql", "postgresql-psycopg")
async def test_server_hears_no_ping_of_a_busy_pool(
    framework: str, backend: Backend, make_site: Any
) -> None:
    """The server numbers the transactions of each connection."""
    site = make(make_site, framework, backend, pool_size=1)
    number = text(
        "SELECT virtualtransaction FROM pg_locks WHERE pid = pg_backend_pid()"
    )

    async def transaction() -> int:
        async with site.session() as session:
            found = await resolve(session.execute(number))
            return int(found.scalars().first().partition("/")[2])

    async with site.context():
        before = await transaction()
        for _ in range(30):
            await use(site)
        assert await transaction() - before == 31


async def test_busy_pool_is_not_pinged(
    framework: str, backend: Backend, make_site: Any
) -> None:
    site = make(make_site, framework, backend, pool_ping_after=60)
    async with site.context():
        await use(site, 3)
        pings = count_pings(site)
        for _ in range(10):
            await use(site, 3)
        assert pings == []


@pytest.mark.parametrize(
    ("options", "pinged"),
    [
        ({"pool_ping_after": 0}, True),
        ({"pool_ping_after": 0, "sync": {"pool_ping_after": None}}, None),
        ({"pool_ping_after": None}, False),
        ({"pool_ping_after": None, "pool_pre_ping": True}, True),
    ],
)
async def test_option(
    framework: str,
    backend: Backend,
    make_site: Any,
    options: dict[str, Any],
    pinged: bool | None,
) -> None:
    site = make(make_site, framework, backend, **options)
    async with site.context():
        await use(site)
        pings = count_pings(site)
        await use(site)
        assert len(pings) == (site.is_async if pinged is None else pinged)


async def test_loss_within_a_transaction_is_one_error_and_the_next_works(
    framework: str, backend: Backend, make_site: Any, server: Any
) -> None:
    site = make(make_site, framework, backend)
    async with site.context():
        await resolve(site.db.session.execute(text("SELECT 1")))
        server.disconnect_all(make_url(backend.url).database)
        with pytest.raises(DBAPIError) as caught:
            await resolve(site.db.session.execute(text("SELECT 1")))
        assert caught.value.connection_invalidated
        await resolve(site.db.session.rollback())
        assert (await resolve(site.db.session.execute(text("SELECT 2")))).scalar() == 2
    async with site.context():
        await use(site)


async def test_loss_before_the_end_of_a_context_fails_nothing(
    framework: str,
    backend: Backend,
    make_database: Any,
    make_site: Any,
    server: Any,
    caplog: Any,
) -> None:
    """The view has its result; and the connection to another bind is given back too."""
    other = make_database(backend.name, "other")
    site = make_site(
        framework,
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_BINDS={"other": other},
    )
    databases = [make_url(backend.url).database, make_url(other).database]
    for lost in databases:
        async with site.context():
            session = site.db.session
            for engine in site.db.engines.values():
                engine = getattr(engine, "sync_engine", engine)
                arguments = {"bind_arguments": {"bind": engine}}
                await resolve(session.execute(text("SELECT 1"), **arguments))
            server.disconnect_all(lost)
            session = session()
        assert not session.in_transaction()
        async with site.context():
            for engine in site.db.engines.values():
                assert engine.pool.checkedout() == 0
            await use(site)
        assert "A connection was lost before it was given back" in caplog.text
        caplog.clear()
