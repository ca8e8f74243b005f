"""``isolation``: what a test does is seen by nobody else, and gone at its end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, InternalError
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site, fresh_db, resolve, serve
from support.databases import Backend

from dualchemy import IsolationError, get_recorded_queries, models_committed
from dualchemy.cli import with_appcontext
from dualchemy.testing.isolation import isolate

ALL = ("sqlite", "sqlite-memory", "postgresql", "postgresql-psycopg", "mariadb")
SERVERS = ("postgresql", "postgresql-psycopg", "mariadb")


class World:
    """A site with a table, an isolation of its API, and somebody who looks at it."""

    def __init__(self, site: Site, url: str, model: Any) -> None:
        self.site, self.db, self.User = site, site.db, model
        self._url = url

    @asynccontextmanager
    async def isolation(self) -> AsyncIterator[None]:
        if self.site.is_async:
            async with self.db.aio.isolation(self.site.app):
                yield
        else:
            with self.db.sync.isolation(self.site.app):
                yield

    async def add(self, *names: str) -> None:
        """Commit users in an app context of their own."""
        async with self.site.context():
            self.db.session.add_all([self.User(name=name) for name in names])
            await resolve(self.db.session.commit())

    async def names(self) -> list[str]:
        """Return the names that a new app context sees."""
        async with self.site.context():
            return await self.seen_by(self.db.session)

    @asynccontextmanager
    async def begin(self, engine: Any) -> AsyncIterator[Any]:
        """A transaction of an engine of either API."""
        if self.site.is_async:
            async with engine.begin() as connection:
                yield connection
        else:
            with engine.begin() as connection:
                yield connection

    async def seen_by(self, session: Any) -> list[str]:
        select = sa.select(self.User.name).order_by(self.User.name)
        return list(await resolve(session.scalars(select)))

    def seen_outside(self) -> list[str]:
        """Return the names that another connection sees, past Dualchemy."""
        url = sa.make_url(self._url)
        drivers = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
        name = url.get_backend_name().replace("mariadb", "mysql")
        engine = sa.create_engine(url.set(drivername=drivers.get(name, "sqlite")))
        with engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT name FROM person ORDER BY name"))
            names = list(rows.scalars())
        engine.dispose()
        return names


async def make_world(site: Site, backend: Backend) -> World:
    class User(site.db.Model):
        __tablename__ = "person"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(40), unique=True)

    async with site.context():
        await resolve(site.db.create_all())
    world = World(site, backend.url, User)
    await world.add("before")
    return world


@pytest.fixture
async def world(site: Site, backend: Backend) -> World:
    return await make_world(site, backend)


@pytest.mark.backends(*ALL)
class TestOneTransaction:
    async def test_commits_are_seen_inside_and_undone_at_the_end(
        self, world: World
    ) -> None:
        async with world.isolation():
            await world.add("a")
            await world.add("b")
            assert await world.names() == ["a", "b", "before"]
        assert await world.names() == ["before"]

    async def test_rollback_undoes_its_own_work(self, world: World) -> None:
        async with world.isolation():
            await world.add("a")
            async with world.site.context():
                session = world.db.session
                session.add(world.User(name="b"))
                await resolve(session.flush())
                await resolve(session.rollback())
                session.add(world.User(name="c"))
                await resolve(session.commit())
            assert await world.names() == ["a", "before", "c"]
        assert await world.names() == ["before"]

    async def test_integrity_error_then_rollback(self, world: World) -> None:
        async with world.isolation():
            await world.add("a")
            async with world.site.context():
                session = world.db.session
                session.add(world.User(name="x"))
                await resolve(session.flush())
                session.add(world.User(name="a"))
                with pytest.raises(IntegrityError):
                    await resolve(session.commit())
                await resolve(session.rollback())
                assert await world.seen_by(session) == ["a", "before"]
                session.add(world.User(name="b"))
                await resolve(session.commit())
            assert await world.names() == ["a", "b", "before"]
        assert await world.names() == ["before"]

    async def test_context_that_ends_uncommitted_is_undone(self, world: World) -> None:
        async with world.isolation():
            async with world.site.context():
                world.db.session.add(world.User(name="a"))
                await resolve(world.db.session.flush())
            assert await world.names() == ["before"]

    async def test_savepoints(self, world: World) -> None:
        async with world.isolation():
            async with world.site.context():
                session = world.db.session
                session.add(world.User(name="a"))
                await resolve(session.flush())
                nested = await resolve(session.begin_nested())
                session.add(world.User(name="b"))
                await resolve(session.flush())
                await resolve(nested.rollback())
                nested = await resolve(session.begin_nested())
                session.add(world.User(name="c"))
                await resolve(nested.commit())
                nested = await resolve(session.begin_nested())
                session.add(world.User(name="a"))
                with pytest.raises(IntegrityError):
                    await resolve(session.flush())
                await resolve(nested.rollback())
                await resolve(session.commit())
            assert await world.names() == ["a", "before", "c"]
        assert await world.names() == ["before"]

    async def test_engine_and_sessionmaker_are_isolated(self, world: World) -> None:
        insert = sa.insert(world.User)
        async with world.isolation(), world.site.context():
            async with world.begin(world.site.api.engine) as connection:
                await resolve(
                    connection.execute(insert, [{"name": "a"}, {"name": "b"}])
                )
            async with world.begin(world.site.api.sessionmaker) as session:
                session.add(world.User(name="c"))
            assert await world.names() == ["a", "b", "before", "c"]
        assert await world.names() == ["before"]

    async def test_engine_taken_before_is_isolated(self, world: World) -> None:
        async with world.site.context():
            engine = world.site.api.engine
            async with world.isolation():
                assert "isolation" in engine.pool.status()
                async with world.begin(engine) as connection:
                    insert = sa.insert(world.User)
                    await resolve(connection.execute(insert, [{"name": "a"}]))
                assert await world.names() == ["a", "before"]
        assert await world.names() == ["before"]

    async def test_autocommit(self, world: World) -> None:
        async with world.isolation():
            async with world.site.context():
                options = {"isolation_level": "AUTOCOMMIT"}
                engine = world.site.api.engine.execution_options(**options)
                async with world.begin(engine) as connection:
                    insert = sa.insert(world.User)
                    await resolve(connection.execute(insert, [{"name": "a"}]))
                    await resolve(connection.rollback())
            assert await world.names() == ["a", "before"]
            async with world.site.context():
                world.db.session.add(world.User(name="b"))
                await resolve(world.db.session.flush())
            assert await world.names() == ["a", "before"]
        assert await world.names() == ["before"]

    async def test_engine_that_autocommits(
        self, make_site: Any, framework: str, backend: Backend
    ) -> None:
        db = fresh_db(engine_options={"isolation_level": "AUTOCOMMIT"})
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)
        world = await make_world(site, backend)
        async with world.isolation():
            await world.add("a")
            async with site.context():
                db.session.add(world.User(name="b"))
                await resolve(db.session.flush())
                await resolve(db.session.rollback())
            assert await world.names() == ["a", "b", "before"]
        assert await world.names() == ["before"]
        await world.add("c")
        assert await world.names() == ["before", "c"]

    async def test_statements_are_recorded(
        self, make_site: Any, framework: str, backend: Backend
    ) -> None:
        site = make_site(
            framework,
            SQLALCHEMY_DATABASE_URI=backend.url,
            SQLALCHEMY_RECORD_QUERIES=True,
        )
        world = await make_world(site, backend)
        async with world.isolation(), site.context():
            await world.seen_by(world.db.session)
            (query,) = get_recorded_queries()
            assert query.statement.startswith("SELECT")

    async def test_inner_isolation(self, world: World) -> None:
        async with world.isolation():
            await world.add("a")
            async with world.isolation():
                await world.add("b")
                async with world.isolation():
                    await world.add("c")
                assert await world.names() == ["a", "b", "before"]
            assert await world.names() == ["a", "before"]
            await world.add("b")
        assert await world.names() == ["before"]

    async def test_inner_isolation_before_anything_is_used(self, world: World) -> None:
        async with world.isolation():
            async with world.isolation():
                await world.add("a")
            assert await world.names() == ["before"]
            await world.add("a")
        assert await world.names() == ["before"]

    async def test_one_after_another(self, world: World) -> None:
        for _ in range(3):
            async with world.isolation():
                await world.add("a")
        await world.add("a")
        assert await world.names() == ["a", "before"]

    async def test_signals_come_as_ever(
        self, make_site: Any, framework: str, backend: Backend
    ) -> None:
        site = make_site(
            framework,
            SQLALCHEMY_DATABASE_URI=backend.url,
            SQLALCHEMY_TRACK_MODIFICATIONS=True,
        )
        world = await make_world(site, backend)
        heard = []
        with models_committed.connected_to(
            lambda _, changes: heard.extend(operation for _, operation in changes)
        ):
            async with world.isolation():
                await world.add("a")
        assert heard == ["insert"]


@pytest.mark.backends("sqlite", *SERVERS)
async def test_nobody_else_sees_it(world: World) -> None:
    async with world.isolation():
        await world.add("a")
        assert world.seen_outside() == ["before"]
    assert world.seen_outside() == ["before"]


@pytest.mark.backends(*ALL)
class TestOverlap:
    """Transactions that are open at the same time, on one connection."""

    async def test_reader_that_stays_open(self, world: World) -> None:
        async with world.isolation(), world.site.context():
            assert await world.seen_by(world.db.session) == ["before"]
            async with world.site.session() as other:
                other.add(world.User(name="a"))
                await resolve(other.commit())
            await resolve(world.db.session.rollback())
            assert await world.seen_by(world.db.session) == ["a", "before"]

    async def test_reader_that_fails(self, world: World) -> None:
        async with world.isolation(), world.site.context():
            assert await world.seen_by(world.db.session) == ["before"]
            async with world.site.session() as other:
                other.add(world.User(name="a"))
                await resolve(other.commit())
            with pytest.raises(sa.exc.DBAPIError):
                await resolve(
                    world.db.session.execute(sa.text("SELECT * FROM nothing"))
                )
            async with world.site.session() as other:
                assert await world.seen_by(other) == ["a", "before"]
            await resolve(world.db.session.rollback())
            assert await world.seen_by(world.db.session) == ["a", "before"]

    async def test_commits_in_any_order(self, world: World) -> None:
        async with world.isolation(), world.site.context():
            async with world.site.session() as one, world.site.session() as two:
                one.add(world.User(name="a"))
                await resolve(one.flush())
                two.add(world.User(name="b"))
                await resolve(two.flush())
                one.add(world.User(name="c"))
                await resolve(one.commit())
                await resolve(two.commit())
            assert await world.names() == ["a", "b", "before", "c"]

    async def test_last_writer_rolls_back_alone(self, world: World) -> None:
        async with world.isolation(), world.site.context():
            async with world.site.session() as one, world.site.session() as two:
                one.add(world.User(name="a"))
                await resolve(one.flush())
                two.add(world.User(name="b"))
                await resolve(two.flush())
                await resolve(two.rollback())
                await resolve(one.commit())
            assert await world.names() == ["a", "before"]

    async def test_earlier_writer_cannot_roll_back_alone(self, world: World) -> None:
        async with world.isolation(), world.site.context():
            async with world.site.session() as one, world.site.session() as two:
                one.add(world.User(name="a"))
                await resolve(one.flush())
                two.add(world.User(name="b"))
                await resolve(two.commit())
                with pytest.raises(IsolationError, match="cannot be rolled back alone"):
                    await resolve(one.rollback())
            assert "b" in await world.names()
        assert await world.names() == ["before"]

    async def test_open_reader_is_not_lost_by_a_rollback_below(
        self, world: World
    ) -> None:
        async with world.isolation(), world.site.context():
            async with world.site.session() as one, world.site.session() as two:
                one.add(world.User(name="a"))
                await resolve(one.flush())
                await world.seen_by(two)
                await resolve(one.rollback())
                two.add(world.User(name="b"))
                await resolve(two.flush())
                await resolve(two.rollback())
                two.add(world.User(name="c"))
                await resolve(two.commit())
            assert await world.names() == ["before", "c"]


@pytest.mark.backends("postgresql", "postgresql-psycopg")
class TestPostgreSQL:
    async def test_failed_transaction_answers_nothing_until_rolled_back(
        self, world: World
    ) -> None:
        async with world.isolation(), world.site.context():
            session = world.db.session
            with pytest.raises(sa.exc.DBAPIError):
                await resolve(session.execute(sa.text("SELECT 1/0")))
            with pytest.raises(InternalError, match="aborted"):
                await resolve(session.execute(sa.text("SELECT 1")))
            await world.add("a")
            await resolve(session.rollback())
            assert await world.seen_by(session) == ["a", "before"]

    async def test_deferred_constraints_are_checked_by_commit(
        self, world: World
    ) -> None:
        create = (
            "CREATE TABLE child (id integer, person_id integer"
            " REFERENCES person (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        async with world.isolation():
            async with world.site.context():
                await resolve(world.db.session.execute(sa.text(create)))
                await resolve(world.db.session.commit())
            for _ in range(2):
                async with world.site.context():
                    insert = sa.text("INSERT INTO child VALUES (1, 99)")
                    await resolve(world.db.session.execute(insert))
                    with pytest.raises(IntegrityError):
                        await resolve(world.db.session.commit())
            async with world.site.context():
                insert = sa.text("INSERT INTO child VALUES (1, 99)")
                await resolve(world.db.session.execute(insert))
                insert = sa.text("INSERT INTO person VALUES (99, 'late')")
                await resolve(world.db.session.execute(insert))
                await resolve(world.db.session.commit())
                count = sa.text("SELECT count(*) FROM child")
                assert await resolve(world.db.session.scalar(count)) == 1
        assert await world.names() == ["before"]

    async def test_tables_made_inside_are_gone(self, world: World) -> None:
        async with world.isolation(), world.site.context():
            await resolve(world.db.session.execute(sa.text("CREATE TABLE t (id int)")))
            await resolve(world.db.session.commit())
            await resolve(world.db.session.execute(sa.text("SELECT * FROM t")))
        async with world.site.context():
            with pytest.raises(sa.exc.ProgrammingError):
                await resolve(world.db.session.execute(sa.text("SELECT * FROM t")))


@pytest.mark.backends("mariadb")
async def test_tables_cannot_be_made_on_mariadb(world: World) -> None:
    async with world.isolation():
        await world.add("a")
        async with world.site.context():
            with pytest.raises(IsolationError, match="commit before CREATE"):
                await resolve(
                    world.db.session.execute(sa.text("CREATE TABLE t (id int)"))
                )
        assert await world.names() == ["a", "before"]
    assert await world.names() == ["before"]


@pytest.mark.backends(*ALL)
class TestBothAPIs:
    async def test_async_view_of_flask_sees_the_same(
        self, make_site: Any, backend: Backend
    ) -> None:
        site = make_site("flask", SQLALCHEMY_DATABASE_URI=backend.url)
        world = await make_world(site, backend)

        @site.app.post("/<name>")
        async def add(name: str) -> list[str]:
            world.db.aio.session.add(world.User(name=name))
            await world.db.aio.session.commit()
            return await world.seen_by(world.db.aio.session)

        def run() -> Any:
            with world.db.sync.isolation(site.app):
                with site.app.app_context():
                    world.db.session.add(world.User(name="a"))
                    world.db.session.commit()
                answer = site.app.test_client().post("/b")
                with site.app.app_context():
                    names = list(world.db.session.scalars(sa.select(world.User.name)))
            return answer.json, sorted(names)

        seen, names = await asyncio.to_thread(run)
        assert seen == names == ["a", "b", "before"]
        assert await world.names() == ["before"]

    async def test_sync_view_of_quart_sees_the_same(
        self, make_site: Any, backend: Backend
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        world = await make_world(site, backend)

        @site.app.post("/<name>")
        def add(name: str) -> list[str]:
            session = world.db.sync.session
            session.add(world.User(name=name))
            session.commit()
            return sorted(session.scalars(sa.select(world.User.name)))

        async with world.isolation():
            await world.add("a")
            response = await site.app.test_client().post("/b")
            assert await response.get_json() == ["a", "b", "before"]
            assert await world.names() == ["a", "b", "before"]
        assert await world.names() == ["before"]

    async def test_sync_api_on_the_loop_is_refused(
        self, make_site: Any, backend: Backend
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        world = await make_world(site, backend)
        async with world.isolation(), site.context():
            with pytest.raises(IsolationError, match="on the event loop"):
                world.db.sync.session.execute(sa.text("SELECT 1"))


@pytest.mark.backends("sqlite", *SERVERS)
class TestMany:
    async def test_threads_of_flask(self, make_site: Any, backend: Backend) -> None:
        site = make_site("flask", SQLALCHEMY_DATABASE_URI=backend.url)
        world = await make_world(site, backend)

        def add(number: int) -> None:
            with site.app.app_context():
                for each in range(5):
                    world.db.session.add(world.User(name=f"{number} {each}"))
                    world.db.session.commit()

        async with world.isolation():
            threads = [threading.Thread(target=add, args=[n]) for n in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            assert len(await world.names()) == 31
        assert await world.names() == ["before"]

    async def test_tasks_of_quart(self, make_site: Any, backend: Backend) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        world = await make_world(site, backend)
        async with world.isolation():
            await asyncio.gather(*(world.add(str(number)) for number in range(30)))
            assert len(await world.names()) == 31
        assert await world.names() == ["before"]

    async def test_real_server(self, world: World) -> None:
        @world.site.view("/<name>", methods=["POST"])
        async def add(name: str = "") -> str:
            return "unused"

        app, db = world.site.app, world.db
        if world.site.is_async:

            @app.post("/add/<name>")
            async def commit(name: str) -> str:
                db.session.add(world.User(name=name))
                await db.session.commit()
                return "done"

        else:

            @app.post("/add/<name>")
            def commit(name: str) -> str:
                db.session.add(world.User(name=name))
                db.session.commit()
                return "done"

        async with world.isolation():
            async with serve(app) as client:
                answers = await asyncio.gather(
                    *(client.post(f"/add/{number}") for number in range(8))
                )
            assert {answer.status_code for answer in answers} == {200}
            assert len(await world.names()) == 9
        assert world.seen_outside() == ["before"]

    async def test_websocket_and_background_task(
        self, make_site: Any, backend: Backend
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        world = await make_world(site, backend)
        done = asyncio.Event()

        @site.app.websocket("/ws")
        async def socket() -> None:
            from quart import websocket

            name = await websocket.receive()
            world.db.session.add(world.User(name=name))
            await world.db.session.commit()
            await websocket.send(",".join(await world.seen_by(world.db.session)))

        @site.app.post("/")
        async def later() -> str:
            async def work() -> None:
                world.db.session.add(world.User(name="later"))
                await world.db.session.commit()
                done.set()

            site.app.add_background_task(work)
            return "started"

        async with world.isolation():
            async with site.app.test_client().websocket("/ws") as client:
                await client.send("a")
                assert await client.receive() == "a,before"
            await site.app.test_client().post("/")
            await asyncio.wait_for(done.wait(), 10)
            assert await world.names() == ["a", "before", "later"]
        assert await world.names() == ["before"]

    async def test_commands(self, world: World) -> None:
        app, db = world.site.app, world.db

        @app.cli.command("add")
        @with_appcontext
        async def add() -> None:
            db.session.add(world.User(name="a"))
            await resolve(db.session.commit())

        async with world.isolation():
            runner = app.test_cli_runner()
            result = await asyncio.to_thread(runner.invoke, args=["add"])
            assert result.exception is None
            assert await world.names() == ["a", "before"]
        assert await world.names() == ["before"]

    async def test_cancelled_statement(self, make_site: Any, backend: Backend) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        world = await make_world(site, backend)
        async with world.isolation():
            await world.add("a")
            for _ in range(3):
                task = asyncio.create_task(world.add("b"))
                await asyncio.sleep(0.002)
                task.cancel()
                await asyncio.wait([task])
            names = await world.names()
            assert names in (["a", "before"], ["a", "b", "before"])
            await world.add("c")
            assert await world.names() == [*names, "c"]
        assert await world.names() == ["before"]


async def test_blocked_loop_is_an_error(make_site: Any, tmp_path: Path) -> None:
    site = make_site("quart", SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'a.db'}")

    @site.app.cli.command("look")
    @with_appcontext
    async def look() -> None:
        await site.db.session.execute(sa.text("SELECT 1"))

    async with site.db.aio.isolation(site.app):
        result = site.app.test_cli_runner().invoke(args=["look"])
        assert isinstance(result.exception, IsolationError)
        assert "is blocked" in str(result.exception)


class TestOutsideLoops:
    """An isolation that begins where no event loop runs, as the plug-in's do."""

    @pytest.fixture
    def site(self, make_sync_site: Any, tmp_path: Path) -> Site:
        url = f"sqlite:///{tmp_path / 'a.db'}"
        site: Site = make_sync_site("quart", SQLALCHEMY_DATABASE_URI=url)
        return site

    def test_sync_api_finds_none_before_the_async_one_does(self, site: Site) -> None:
        with isolate(site.app.extensions["dualchemy"].engines, "async"):
            with site.db.sync.sessionmaker(app=site.app) as session:
                with pytest.raises(IsolationError, match="there is no event loop"):
                    session.execute(sa.text("SELECT 1"))

    def test_second_one_is_an_error(self, site: Site) -> None:
        async def ask() -> int | None:
            async with site.db.aio.sessionmaker(app=site.app) as session:
                return await session.scalar(sa.text("SELECT 1"))

        with isolate(site.app.extensions["dualchemy"].engines, "async"):
            assert asyncio.run(ask()) == 1
            with pytest.raises(IsolationError, match="event loop is closed"):
                asyncio.run(ask())
        assert asyncio.run(ask()) == 1


@pytest.mark.backends(*ALL)
class TestEdges:
    async def test_connection_in_use_is_refused(self, world: World) -> None:
        async with world.site.context():
            await world.seen_by(world.db.session)
            with pytest.raises(IsolationError, match=r"session\.remove"):
                async with world.isolation():
                    await world.seen_by(world.db.session)
            await resolve(world.db.session.rollback())
            async with world.isolation():
                await world.add("a")
        assert await world.names() == ["before"]

    async def test_session_that_outlives_it(self, world: World) -> None:
        async with world.site.context():
            async with world.isolation():
                world.db.session.add(world.User(name="a"))
                await resolve(world.db.session.flush())
            with pytest.raises(IsolationError, match="has ended"):
                await resolve(world.db.session.execute(sa.text("SELECT 1")))
            with pytest.raises(IsolationError, match="has ended"):
                await resolve(world.db.session.commit())
            await resolve(world.db.session.rollback())
            assert await world.seen_by(world.db.session) == ["before"]

    async def test_error_in_the_block_passes_through(self, world: World) -> None:
        with pytest.raises(ZeroDivisionError):
            async with world.isolation():
                await world.add("a")
                1 / 0  # noqa: B018
        assert await world.names() == ["before"]

    async def test_app_of_another_db(self, world: World, make_site: Any) -> None:
        other = make_site("flask", SQLALCHEMY_DATABASE_URI="sqlite://")
        with pytest.raises(RuntimeError, match="not registered"):
            with world.db.sync.isolation(other.app):
                pass

    async def test_databases_of_each_api(
        self, make_site: Any, framework: str, backend: Backend, make_database: Any
    ) -> None:
        other = make_database("sqlite", "other")
        site = make_site(
            framework,
            SQLALCHEMY_BINDS={None: {"url": backend.url, "async": {"url": other}}},
        )
        async with site.context():
            with site.db.sync.isolation():
                for _ in range(
                    2
                ):  # The second time there is no engine left of the first.
                    with pytest.raises(IsolationError, match="databases of their own"):
                        await site.db.aio.session.execute(sa.text("SELECT 1"))
                site.db.sync.session.execute(sa.text("SELECT 1"))

    async def test_dispose_inside(self, world: World) -> None:
        async with world.isolation():
            await world.add("a")
            async with world.site.context():
                await resolve(world.site.api.dispose())
            await world.add("b")
            assert await world.names() == ["a", "b", "before"]
        assert await world.names() == ["before"]


@pytest.mark.backends(*SERVERS)
async def test_binds(
    make_site: Any, framework: str, backend: Backend, make_database: Any
) -> None:
    other = make_database(backend.name, "other")
    db = fresh_db()
    site = make_site(
        framework,
        db,
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_BINDS={"x": other},
    )

    class Log(db.Model):
        __bind_key__ = "x"
        id: Mapped[int] = mapped_column(primary_key=True)

    world = await make_world(site, backend)
    count = sa.select(sa.func.count()).select_from(Log)
    async with world.isolation():
        async with site.context():
            db.session.add_all([Log(id=1), world.User(name="a")])
            await resolve(db.session.commit())
        async with site.context():
            assert await resolve(db.session.scalar(count)) == 1
    async with site.context():
        assert await resolve(db.session.scalar(count)) == 0


@pytest.mark.backends(*SERVERS)
async def test_lost_connection(world: World, server: Any) -> None:
    async with world.isolation():
        await world.add("a")
        async with world.site.context():
            connections = "SELECT pg_backend_pid()"
            if world.site.api.engine.dialect.name != "postgresql":
                connections = "SELECT connection_id()"
            number = await resolve(world.db.session.scalar(sa.text(connections)))
        url = sa.make_url(world._url)
        is_postgresql = url.get_backend_name() == "postgresql"
        engine = sa.create_engine(
            url.set(
                drivername="postgresql+psycopg" if is_postgresql else "mysql+pymysql"
            )
        )
        kill = (
            f"SELECT pg_terminate_backend({number})"
            if is_postgresql
            else f"KILL {number}"
        )
        with engine.connect() as connection:
            connection.execute(sa.text(kill))
        engine.dispose()
        with pytest.raises((IsolationError, sa.exc.DBAPIError)):
            await world.add("b")
        with pytest.raises(IsolationError, match="was lost"):
            await world.add("c")
    assert await world.names() == ["before"]


@pytest.mark.backends("postgresql", "postgresql-psycopg")
async def test_connection_that_was_lost_before(
    framework: str, backend: Backend, make_site: Any, server: Any
) -> None:
    """An engine that commits by itself begins once more, on another connection."""
    world = await make_world(
        make_site(
            framework,
            SQLALCHEMY_DATABASE_URI=backend.url,
            SQLALCHEMY_ENGINE_OPTIONS={
                "isolation_level": "AUTOCOMMIT",
                "pool_ping_after": None,
            },
        ),
        backend,
    )
    server.disconnect_all(sa.make_url(backend.url).database)
    async with world.isolation():
        with pytest.raises(Exception, match=r"clos|terminat"):
            await world.names()
        await world.add("a")
        assert await world.names() == ["a", "before"]
    assert await world.names() == ["before"]


def test_session_that_is_collected_within_a_statement(
    make_sync_site: Any, tmp_path: Path
) -> None:
    """Its rollback has its turn when that is done."""
    site = make_sync_site(
        "flask", SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'a'}"
    )

    class Note(site.db.Model):  # type: ignore[name-defined]
        id: Mapped[int] = mapped_column(primary_key=True)

    collecting: list[bool] = []
    between: list[str] = []

    def collect() -> int:
        collecting.append(True)
        number = gc.collect()
        collecting.clear()
        return number

    def trace(sql: str) -> None:
        if collecting:
            between.append(sql)

    def connected(connection: Any, _: object) -> None:
        connection.create_function("collect", 0, collect)
        connection.set_trace_callback(trace)

    with site.app.app_context():
        event.listen(site.db.engine, "connect", connected)
        site.db.create_all()
    with site.db.sync.isolation(site.app), site.app.app_context():
        gc.disable()
        try:
            forgotten = site.db.sync.sessionmaker()
            forgotten.add(Note(id=1))
            forgotten.flush()
            forgotten.info["itself"] = forgotten
            del forgotten
            collected = site.db.session.scalar(sa.select(sa.func.collect()))
        finally:
            gc.enable()
        assert collected > 0
        assert between == []
        assert site.db.session.get(Note, 1) is None


class TestDrivers:
    """What goes past SQLAlchemy."""

    @pytest.mark.backends("sqlite", "postgresql", "mariadb")
    async def test_cursor_of_the_driver(self, world: World) -> None:
        async with world.isolation(), world.site.context():

            def use(engine: sa.Engine) -> list[str]:
                connection: Any = engine.raw_connection()
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO person (name) VALUES ('a')")
                connection.commit()
                cursor = connection.cursor()
                cursor.execute("INSERT INTO person (name) VALUES ('b')")
                connection.rollback()
                cursor.execute("SELECT name FROM person ORDER BY name")
                names = [name for (name,) in cursor]
                cursor.close()
                connection.close()
                return names

            if world.site.is_async:
                session = world.db.session()
                engine = world.db.aio.engine.sync_engine
                names = await session.run_sync(lambda _: use(engine))
            else:
                names = use(world.db.sync.engine)
            assert names == ["a", "before"]
        assert await world.names() == ["before"]

    @pytest.mark.backends("sqlite", "sqlite-memory")
    async def test_what_ends_the_transaction_of_sqlite(self, world: World) -> None:
        twice = "INSERT OR ROLLBACK INTO person (name) VALUES ('before')"
        async with world.isolation():
            await world.add("a")
            with pytest.raises(IsolationError, match="rolled back or committed all"):
                async with world.site.context():
                    with pytest.raises(IntegrityError):
                        await resolve(world.db.session.execute(sa.text(twice)))
                await world.add("b")
            with pytest.raises(IsolationError, match="rolled back or committed all"):
                await world.add("c")
        assert await world.names() == ["before"]

    @pytest.mark.backends("sqlite", "sqlite-memory", "postgresql-psycopg")
    async def test_short_cuts_of_a_connection(self, world: World) -> None:
        def use(engine: sa.Engine) -> None:
            connection: Any = engine.raw_connection()
            driver = connection.dbapi_connection
            driver.execute("INSERT INTO person (name) VALUES ('a')")
            connection.rollback()
            for name in ("executescript", "transaction"):
                with pytest.raises(IsolationError, match="commits by itself"):
                    getattr(driver, name)
            with pytest.raises(IsolationError, match="commits by itself"):
                connection.cursor().executescript  # noqa: B018
            connection.close()

        async with world.isolation(), world.site.context():
            if world.site.is_async:
                engine = world.db.aio.engine.sync_engine
                await world.db.session().run_sync(lambda _: use(engine))
            else:
                use(world.db.sync.engine)
            assert await world.names() == ["before"]

    @pytest.mark.backends("postgresql", "mariadb")
    async def test_transaction_control_in_text(self, world: World) -> None:
        async with world.isolation():
            async with world.site.context():
                session = world.db.session
                for sql in (
                    "BEGIN",
                    "INSERT INTO person (name) VALUES ('a')",
                    "COMMIT",
                    "INSERT INTO person (name) VALUES ('b')",
                    "SAVEPOINT here",
                    "INSERT INTO person (name) VALUES ('c')",
                    "ROLLBACK TO SAVEPOINT here",
                    "RELEASE SAVEPOINT here",
                    "COMMIT",
                    "INSERT INTO person (name) VALUES ('d')",
                    "ROLLBACK",
                ):
                    await resolve(session.execute(sa.text(sql)))
                with pytest.raises(IsolationError, match="no savepoint 'gone'"):
                    await resolve(session.execute(sa.text("RELEASE SAVEPOINT gone")))
            assert await world.names() == ["a", "b", "before"]
        assert await world.names() == ["before"]

    @pytest.mark.backends(*SERVERS)
    async def test_two_phase_transactions_are_refused(
        self, make_site: Any, framework: str, backend: Backend
    ) -> None:
        db = fresh_db(session_options={"twophase": True})
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            isolation = db.aio.isolation() if site.is_async else db.sync.isolation()
            if site.is_async:
                async with isolation:
                    with pytest.raises(IsolationError, match="two-phase"):
                        await db.session.execute(sa.text("SELECT 1"))
                        await db.session.commit()
            else:
                with isolation, pytest.raises(IsolationError, match="two-phase"):
                    db.session.execute(sa.text("SELECT 1"))
                    db.session.commit()

    @pytest.mark.backends("postgresql-psycopg")
    async def test_settings_of_the_connection_are_refused(
        self, make_site: Any, backend: Backend
    ) -> None:
        site = make_site("flask", SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            with site.db.sync.isolation():
                engine = site.db.sync.engine.execution_options(postgresql_readonly=True)
                with pytest.raises(IsolationError, match="'read_only'"):
                    engine.connect()

    @pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")
    async def test_rows_that_are_streamed(self, world: World) -> None:
        await world.add(*(f"{number:03}" for number in range(100)))
        select = sa.select(world.User.name).order_by(world.User.name)
        async with world.isolation(), world.site.context():
            await world.add("a")
            if world.site.is_async:
                result = await world.db.session.stream(select)
                found = [name async for (name,) in result]
            else:
                options = {"yield_per": 10}
                result = world.db.session.execute(select, execution_options=options)
                found = [name for (name,) in result]
            assert len(found) == 102

    @pytest.mark.backends("postgresql", "postgresql-psycopg")
    async def test_commit_of_a_failed_transaction_keeps_nothing(
        self, world: World
    ) -> None:
        async with world.isolation(), world.site.context():
            async with world.begin(world.site.api.engine) as connection:
                insert = sa.insert(world.User).values(name="a")
                await resolve(connection.execute(insert))
                with pytest.raises(sa.exc.DBAPIError):
                    await resolve(connection.execute(sa.text("SELECT 1/0")))
            assert await world.names() == ["before"]


@pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
class TestLoops:
    """An isolation by ``db.aio``, and code that does not run on its loop."""

    @pytest.fixture
    async def quart(self, make_site: Any, backend: Backend) -> World:
        return await make_world(
            make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url), backend
        )

    async def test_another_loop(self, quart: World) -> None:
        async with quart.isolation():
            await quart.add("a")
            await asyncio.to_thread(asyncio.run, quart.add("b"))
            assert await quart.names() == ["a", "b", "before"]
        assert await quart.names() == ["before"]

    async def test_session_that_is_never_closed(self, quart: World) -> None:
        async with quart.isolation():
            async with quart.site.context():
                session = quart.db.aio.sessionmaker()
                session.add(quart.User(name="a"))
                await session.flush()
                del session
                with pytest.warns(sa.exc.SAWarning, match="non-checked-in"):
                    gc.collect()
            assert await quart.names() == ["before"]

    async def test_session_that_a_thread_never_closes(
        self, make_site: Any, backend: Backend
    ) -> None:
        site = make_site("flask", SQLALCHEMY_DATABASE_URI=backend.url)
        world = await make_world(site, backend)
        async with world.isolation():
            async with site.context():
                session = world.db.sync.sessionmaker()
                session.add(world.User(name="a"))
                session.flush()
                del session
                gc.collect()
            assert await world.names() == ["before"]

    async def test_loop_that_does_not_run(self, backend: Backend, sites: Any) -> None:
        site = sites.make("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        names: list[list[str]] = []

        def use_engine() -> None:
            # A thread without a loop, an app context that is the main one's copy.
            engine = site.db.sync.engine
            with engine.begin() as connection:
                connection.execute(sa.text("INSERT INTO person (name) VALUES ('b')"))

        def run() -> None:
            with asyncio.Runner() as runner:
                world = runner.run(make_world(site, backend))
                isolation = site.db.aio.isolation(site.app)
                runner.run(isolation.__aenter__())
                runner.run(world.add("a"))
                context = site.app.app_context()
                variables = contextvars.copy_context()
                runner.run(context.__aenter__(), context=variables)
                variables.run(use_engine)
                runner.run(context.__aexit__(None, None, None), context=variables)
                names.append(runner.run(world.names()))
                runner.run(isolation.__aexit__(None, None, None))
                names.append(runner.run(world.names()))

        await asyncio.to_thread(run)
        assert names == [["a", "b", "before"], ["before"]]
