"""``count_queries()`` and ``assert_queries()``: the statements of a block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from support.apps import Site, resolve
from support.databases import Backend

from dualchemy import UnknownBindKeyError

ONE = sa.text("SELECT 1")


@asynccontextmanager
async def entered(site: Site, manager: Any) -> Any:
    if site.is_async:
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


@pytest.mark.backends("sqlite", "postgresql", "mariadb")
async def test_statements_of_all_contexts(site: Site) -> None:
    @site.view("/")
    async def index() -> Any:
        return str((await resolve(site.db.session.execute(ONE))).scalar())

    if not site.is_async:
        site.app.view_functions["index"] = lambda: str(site.db.session.scalar(ONE))
    two = sa.select(sa.bindparam("n", 2, sa.Integer))
    async with entered(site, site.api.count_queries(app=site.app)) as queries:
        assert await site.get("/") == (200, "1")
        assert len(queries) == 1
        async with site.context():
            await resolve(site.db.session.scalar(two))
            async with site.session() as session:
                with pytest.raises(sa.exc.DBAPIError):
                    await resolve(session.execute(sa.text("SELECT nonsense")))
    async with site.context():
        await resolve(site.db.session.execute(ONE))

    assert [query.statement for query in queries][::2] == [
        "SELECT 1",
        "SELECT nonsense",
    ]
    assert "2" in str(queries[1].parameters)
    assert all(query.bind_key is None for query in queries)
    assert all(query.duration > 0 for query in queries)
    assert str(queries).startswith("    1. SELECT 1 [")


@pytest.mark.backends("sqlite")
async def test_engine_made_before_and_two_counts(site: Site) -> None:
    async with site.context():
        await resolve(site.db.session.execute(ONE))
        async with entered(site, site.db.count_queries()) as outer:
            await resolve(site.db.session.execute(ONE))
            async with entered(site, site.db.count_queries()) as inner:
                await resolve(site.db.session.execute(ONE))
    assert (len(outer), len(inner)) == (2, 1)


@pytest.mark.backends("sqlite")
async def test_bind_keys(
    framework: str, make_site: Callable[..., Site], backend: Backend
) -> None:
    site = make_site(
        framework,
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_BINDS={"other": "sqlite://"},
    )
    async with site.context():
        with pytest.raises(UnknownBindKeyError, match="'wrong'"):
            async with entered(site, site.api.count_queries("wrong")):
                pass
        async with (
            entered(site, site.api.count_queries()) as both,
            entered(site, site.api.count_queries([None])) as default,
            entered(site, site.api.count_queries("other")) as other,
        ):
            for engine in site.api.engines.values():
                if site.is_async:
                    async with engine.connect() as connection:
                        await connection.execute(ONE)
                else:
                    with engine.connect() as connection:
                        connection.execute(ONE)
    assert [query.bind_key for query in both] == [None, "other"]
    assert [len(default), len(other)] == [1, 1]
    assert "SELECT 1 on 'other' [" in str(other)


@pytest.mark.backends("sqlite")
async def test_threads_and_tasks(site: Site) -> None:
    async def work() -> None:
        async with site.context(), site.session() as session:
            await resolve(session.execute(ONE))

    async with entered(site, site.api.count_queries(app=site.app)) as queries:
        await asyncio.gather(work(), work())
        await asyncio.to_thread(asyncio.run, work())
    assert len(queries) == 3


@pytest.mark.backends("sqlite")
class TestAssertion:
    async def test_that_holds(self, site: Site) -> None:
        async with site.context(), entered(site, site.api.assert_queries(2)) as queries:
            for _ in range(2):
                await resolve(site.db.session.execute(ONE))
        assert len(queries) == 2

    async def test_that_fails_lists_the_statements(self, site: Site) -> None:
        with pytest.raises(AssertionError) as raised:
            async with site.context(), entered(site, site.api.assert_queries(1)):
                for number in (1, 2, 1):
                    select = sa.text(f"SELECT\n {number} WHERE :x")
                    await resolve(site.db.session.execute(select, {"x": "y"}))
        first, *lines = str(raised.value).splitlines()
        assert first == "1 statement expected, 3 ran."
        assert [line.partition(" [")[0] for line in lines] == [
            "    1. SELECT 1 WHERE ?",
            "       with ('y',)",
            "+   2. SELECT 2 WHERE ?",
            "       with ('y',)",
            "+   3. (as no. 1) SELECT 1 WHERE ?",
            "       with ('y',)",
            "2 times: SELECT 1 WHERE ?",
        ]

    async def test_that_misses_statements(self, site: Site) -> None:
        with pytest.raises(AssertionError, match="2 statements expected, none ran"):
            async with site.context(), entered(site, site.api.assert_queries(2)):
                pass

    async def test_of_a_block_that_raises(self, site: Site) -> None:
        with pytest.raises(ZeroDivisionError):
            async with site.context(), entered(site, site.api.assert_queries(2)):
                raise ZeroDivisionError
