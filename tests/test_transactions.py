"""What a commit, a rollback and a savepoint leave in the database."""

from __future__ import annotations

from typing import Any

import aiosqlite
import pytest
from sqlalchemy import ForeignKey, String, event, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site, resolve
from support.databases import Backend


def define(db: Any, deferred: bool) -> Any:
    options = {"deferrable": True, "initially": "DEFERRED"} if deferred else {}

    class Thing(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20), unique=True)
        owner_id: Mapped[int | None] = mapped_column(ForeignKey("thing.id", **options))

    return Thing


async def names(site: Site, Thing: Any) -> list[str]:
    async with site.context():
        found = await resolve(
            site.db.session.scalars(select(Thing.name).order_by("id"))
        )
        return list(found)


@pytest.fixture
def make_things(framework: str, backend: Backend, make_site: Any) -> Any:
    async def make() -> tuple[Site, Any]:
        options: dict[str, Any] = {}
        if not backend.is_server:
            options["pragmas"] = {"foreign_keys": True}
        site = make_site(
            framework,
            SQLALCHEMY_DATABASE_URI=backend.url,
            SQLALCHEMY_ENGINE_OPTIONS=options,
        )
        Thing = define(site.db, deferred=backend.name != "mariadb")
        async with site.context():
            await resolve(site.db.create_all())
        return site, Thing

    return make


@pytest.mark.backends("sqlite", "sqlite-memory", "postgresql", "postgresql-psycopg")
async def test_commit_that_the_database_refuses(make_things: Any) -> None:
    """A deferred constraint fails the COMMIT itself. MariaDB has none."""
    site, Thing = await make_things()
    committed: list[object] = []
    async with site.context():
        session = site.db.session
        event.listen(
            getattr(session(), "sync_session", session()),
            "after_commit",
            committed.append,
        )
        session.add(Thing(id=1, name="orphan", owner_id=99))
        await resolve(session.flush())
        with pytest.raises(IntegrityError):
            await resolve(session.commit())
        assert committed == []
        await resolve(session.rollback())
        session.add(Thing(id=2, name="good"))
        await resolve(session.commit())
        assert len(committed) == 1
    assert await names(site, Thing) == ["good"]


async def test_exception_after_a_flush_loses_nothing_committed_before(
    make_things: Any,
) -> None:
    site, Thing = await make_things()

    @site.view("/")
    async def view() -> str:
        site.db.session.add(Thing(id=1, name="before"))
        await resolve(site.db.session.commit())
        site.db.session.add(Thing(id=2, name="after"))
        await resolve(site.db.session.flush())
        raise ZeroDivisionError

    site.app.testing = False
    site.app.logger.disabled = True
    assert (await site.get("/"))[0] == 500
    assert await names(site, Thing) == ["before"]


async def test_failed_flush_is_rolled_back_and_the_session_goes_on(
    make_things: Any,
) -> None:
    site, Thing = await make_things()
    async with site.context():
        session = site.db.session
        session.add(Thing(name="ada"))
        await resolve(session.commit())
        session.add_all([Thing(name="grace"), Thing(name="ada")])
        with pytest.raises(IntegrityError):
            await resolve(session.commit())
        await resolve(session.rollback())
        session.add(Thing(name="edsger"))
        await resolve(session.commit())
    assert await names(site, Thing) == ["ada", "edsger"]


async def test_savepoints_within_savepoints(make_things: Any) -> None:
    site, Thing = await make_things()
    async with site.context():
        session = site.db.session

        async def add(name: str) -> None:
            session.add(Thing(name=name))
            await resolve(session.flush())

        outer = await resolve(session.begin_nested())
        await add("outer")
        inner = await resolve(session.begin_nested())
        await add("inner")
        await resolve(inner.rollback())
        inner = await resolve(session.begin_nested())
        await add("second inner")
        await resolve(inner.commit())
        await resolve(outer.commit())
        rolled_back = await resolve(session.begin_nested())
        await add("a whole branch")
        await resolve((await resolve(session.begin_nested())).commit())
        await resolve(rolled_back.rollback())
        await resolve(session.commit())
    assert await names(site, Thing) == ["outer", "second inner"]


async def test_integrity_error_within_a_savepoint_spares_the_rest(
    make_things: Any,
) -> None:
    site, Thing = await make_things()
    async with site.context():
        session = site.db.session
        session.add(Thing(name="ada"))
        await resolve(session.flush())
        savepoint = await resolve(session.begin_nested())
        session.add(Thing(name="ada"))
        with pytest.raises(DBAPIError):
            await resolve(session.flush())
        await resolve(savepoint.rollback())
        session.add(Thing(name="grace"))
        await resolve(session.commit())
        count = select(func.count()).select_from(Thing)
        assert await resolve(session.scalar(count)) == 2
    assert await names(site, Thing) == ["ada", "grace"]


@pytest.mark.backends("sqlite")
class TestRollback:
    """SQLite is told to roll back where there is something to roll back."""

    async def test_reading_needs_none(
        self, make_things: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site, Thing = await make_things()
        told: list[object] = []
        roll_back = aiosqlite.Connection.rollback

        async def count(connection: Any) -> None:
            told.append(connection)
            await roll_back(connection)

        monkeypatch.setattr(aiosqlite.Connection, "rollback", count)
        assert await names(site, Thing) == []
        assert told == []
        async with site.context():
            site.db.session.add(Thing(name="gone"))
            await resolve(site.db.session.flush())
        assert len(told) == site.is_async

    async def test_what_was_written_is_rolled_back(self, make_things: Any) -> None:
        site, Thing = await make_things()
        async with site.context():
            site.db.session.add(Thing(name="gone"))
            await resolve(site.db.session.flush())
        async with site.context():
            assert await names(site, Thing) == []
