"""Which engine connects to a bind, and how long its connections live."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool, StaticPool
from support.apps import FRAMEWORKS, Site, fresh_db, resolve, serve
from support.databases import Backend

from dualchemy import (
    ConfigError,
    ContextError,
    MissingDriverError,
    SQLAlchemy,
    UnknownBindKeyError,
)


async def execute(engine: Any, sql: str) -> Any:
    """Run a statement on an engine of either API."""
    if isinstance(engine, AsyncEngine):
        async with engine.begin() as connection:
            result = await connection.exec_driver_sql(sql)
            return result.all() if result.returns_rows else None
    with engine.begin() as connection:
        result = connection.exec_driver_sql(sql)
        return result.all() if result.returns_rows else None


async def test_one_url_serves_both_apis(site: Site, backend: Backend) -> None:
    async with site.context():
        assert site.db.sync.engine.dialect.driver == backend.sync_driver
        aio = site.db.aio.engine
        assert aio.dialect.driver == backend.async_driver
        assert await execute(site.db.sync.engine, "SELECT 1") == [(1,)]
        assert await execute(aio, "SELECT 1") == [(1,)]


async def test_current_api_is_the_frameworks(site: Site) -> None:
    async with site.context():
        assert site.db.engine is site.api.engine
        assert isinstance(site.db.engine, AsyncEngine) is site.is_async
        assert site.db.engines[None] is site.db.engine
        assert list(site.db.engines) == [None]


@pytest.mark.backends("sqlite", "postgresql", "mariadb")
async def test_both_apis_see_the_same_database(site: Site) -> None:
    async with site.context():
        await execute(site.db.sync.engine, "CREATE TABLE thing (id INTEGER)")
        await execute(site.db.aio.engine, "INSERT INTO thing VALUES (7)")
        assert await execute(site.db.sync.engine, "SELECT id FROM thing") == [(7,)]


@pytest.mark.backends("sqlite")
class TestEngines:
    async def test_are_made_on_first_use(self, site: Site) -> None:
        engines = site.app.extensions["dualchemy"].engines
        assert not engines.sync.made
        async with site.context():
            engine = site.db.sync.engine
            assert site.db.sync.engine is engine
            assert list(engines.sync.made) == [None]

    async def test_unknown_key_names_the_known(
        self, framework: str, backend: Backend, make_site: Any
    ) -> None:
        site = make_site(
            framework,
            SQLALCHEMY_DATABASE_URI=backend.url,
            SQLALCHEMY_BINDS={"reports": "sqlite://"},
        )
        async with site.context():
            with pytest.raises(UnknownBindKeyError) as caught:
                site.db.engines["report"]
        assert str(caught.value).startswith(
            "Bind key 'report' is not in 'SQLALCHEMY_BINDS' config, which has"
            " None (the default), 'reports'. Did you mean 'reports'?"
        )
        assert isinstance(caught.value, KeyError)

    async def test_copy_is_a_dict_of_all(self, framework: str, make_site: Any) -> None:
        binds = {"reports": "sqlite://"}
        site = make_site(
            framework,
            SQLALCHEMY_DATABASE_URI="sqlite://",
            SQLALCHEMY_BINDS=binds,
        )
        async with site.context():
            engines = site.db.engines
            copy = engines.copy()
            assert copy == {None: site.db.engine, "reports": engines["reports"]}
            copy["default"] = copy.pop(None)
            assert list(engines) == [None, "reports"]

    async def test_without_a_default_bind(self, framework: str, make_site: Any) -> None:
        site = make_site(framework, SQLALCHEMY_BINDS={"reports": "sqlite://"})
        async with site.context():
            assert list(site.db.engines) == ["reports"]
            assert None not in site.db.engines
            with pytest.raises(UnknownBindKeyError) as caught:
                _ = site.db.engine
        assert str(caught.value).startswith(
            "There is no default bind: 'SQLALCHEMY_DATABASE_URI' is not set. Set it, or"
            " give a bind key: 'reports'."
        )

    async def test_are_of_the_app_and_its_context(
        self, framework: str, backend: Backend, make_site: Any
    ) -> None:
        db = fresh_db()
        one = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)
        two = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)
        async with one.context():
            first = db.engine
        async with two.context():
            assert db.engine is not first

    async def test_repr_hides_the_password(
        self, framework: str, make_site: Any
    ) -> None:
        site = make_site(
            framework,
            SQLALCHEMY_DATABASE_URI="postgresql://me:s3cret@127.0.0.1/shop",
            SQLALCHEMY_BINDS={"reports": "sqlite://"},
        )
        assert repr(site.db) == "<SQLAlchemy>"
        async with site.context():
            assert repr(site.db) == (
                "<SQLAlchemy postgresql://me:***@127.0.0.1/shop +1>"
            )
            assert "s3cret" not in repr(site.db.engines) + repr(site.db.engine)

    async def test_get_engine_is_deprecated(self, site: Site) -> None:
        async with site.context():
            with pytest.warns(DeprecationWarning, match="Use 'engine'"):
                assert site.db.sync.get_engine() is site.db.sync.engine


@pytest.mark.backends("postgresql", "mariadb")
async def test_wrong_password_is_not_shown(backend: Backend, make_site: Any) -> None:
    url = make_url(backend.url).set(
        username="nobody", password="s3cret", host="127.0.0.1"
    )
    url = url.set(port=1, query={})
    text_ = url.render_as_string(hide_password=False)
    site = make_site("quart", SQLALCHEMY_DATABASE_URI=text_)
    async with site.context():
        for engine in (site.db.sync.engine, site.db.aio.engine):
            with pytest.raises((OperationalError, OSError)) as caught:
                await execute(engine, "SELECT 1")
            assert "s3cret" not in str(caught.value)


class TestOverrides:
    async def test_of_options_and_url(self, tmp_path: Any, make_site: Any) -> None:
        site = make_site(
            "quart",
            SQLALCHEMY_BINDS={
                None: {
                    "url": f"sqlite:///{tmp_path}/a.db",
                    "sync": {"poolclass": NullPool},
                    "async": {
                        "url": f"sqlite:///{tmp_path}/b.db",
                        "pool_size": 3,
                        "connect_args": {"timeout": 9},
                    },
                }
            },
        )
        async with site.context():
            assert isinstance(site.db.sync.engine.pool, NullPool)
            assert str(site.db.sync.engine.url).endswith("a.db")
            assert site.db.aio.engine.pool.size() == 3
            assert str(site.db.aio.engine.url).endswith("b.db")
            await execute(site.db.aio.engine, "SELECT 1")

    async def test_queue_pool_means_its_async_form_on_the_async_api(
        self, tmp_path: Any, make_site: Any
    ) -> None:
        site = make_site(
            "quart",
            SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/a.db",
            SQLALCHEMY_ENGINE_OPTIONS={"poolclass": QueuePool},
        )
        async with site.context():
            assert isinstance(site.db.aio.engine.pool, AsyncAdaptedQueuePool)
            assert isinstance(site.db.sync.engine.pool, QueuePool)
            assert not isinstance(site.db.sync.engine.pool, AsyncAdaptedQueuePool)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (
                {"poolclass": NullPool, "pool_size": 3},
                "Invalid argument(s) 'pool_size'",
            ),
            ({"pool_size": "many"}, "invalid literal for int()"),
            (
                {"pool_reset_on_return": "no"},
                "Invalid value for 'reset_on_return': 'no'",
            ),
        ],
    )
    async def test_options_that_sqlalchemy_refuses(
        self, make_site: Any, options: dict[str, Any], reason: str
    ) -> None:
        site = make_site(
            "flask",
            SQLALCHEMY_DATABASE_URI="sqlite:///a.db",
            SQLALCHEMY_ENGINE_OPTIONS=options,
        )
        async with site.context():
            with pytest.raises(ConfigError) as caught:
                _ = site.db.engine
        assert str(caught.value).startswith(
            "SQLALCHEMY_DATABASE_URI: SQLAlchemy refused the engine options for the sync"
            f" API: {reason}"
        )


class TestMySQLDefaults:
    async def test_charset_and_recycle(self, make_site: Any) -> None:
        site = make_site("flask", SQLALCHEMY_DATABASE_URI="mysql://me@127.0.0.1/shop")
        async with site.context():
            for engine in (site.db.sync.engine, site.db.aio.engine.sync_engine):
                assert engine.url.query == {"charset": "utf8mb4"}
                assert engine.pool._recycle == 7200

    async def test_own_values_win(self, make_site: Any) -> None:
        site = make_site(
            "flask",
            SQLALCHEMY_DATABASE_URI="mariadb://me@127.0.0.1/shop?charset=latin1",
            SQLALCHEMY_ENGINE_OPTIONS={"pool_recycle": 60},
        )
        async with site.context():
            assert site.db.engine.url.query == {"charset": "latin1"}
            assert site.db.engine.pool._recycle == 60

    async def test_no_recycle_without_a_queue(self, make_site: Any) -> None:
        site = make_site(
            "flask",
            SQLALCHEMY_DATABASE_URI="mysql://me@127.0.0.1/shop",
            SQLALCHEMY_ENGINE_OPTIONS={"poolclass": NullPool},
        )
        async with site.context():
            assert site.db.engine.pool._recycle == -1


@pytest.mark.backends("postgresql", "postgresql-psycopg")
async def test_libpq_parameters_work_on_both_apis(
    backend: Backend, make_site: Any
) -> None:
    parameters = {"application_name": "shop", "sslmode": "disable"}
    url = make_url(backend.url).update_query_dict(parameters)
    text_ = url.render_as_string(hide_password=False)
    site = make_site("quart", SQLALCHEMY_DATABASE_URI=text_)
    async with site.context():
        for engine in (site.db.sync.engine, site.db.aio.engine):
            assert await execute(engine, "SHOW application_name") == [("shop",)]


@pytest.mark.backends("postgresql")
async def test_options_for_pgbouncer_prepare_no_statement_under_a_fixed_name(
    framework: str, backend: Backend, make_site: Any
) -> None:
    """The options that docs/deploying.rst shows."""
    site = make_site(
        framework,
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_ENGINE_OPTIONS={
            "async": {
                "connect_args": {
                    "statement_cache_size": 0,
                    "prepared_statement_cache_size": 0,
                    "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
                }
            },
            "sync": {"connect_args": {"prepare_threshold": None}},
        },
    )
    async with site.context(), site.session() as session:
        for _ in range(6):  # psycopg prepares what it sees for the fifth time
            await resolve(session.execute(text("SELECT 1")))
        prepared = text("SELECT name FROM pg_prepared_statements")
        names = (await resolve(session.execute(prepared))).scalars().all()
    assert [name for name in names if not re.search(r"_[0-9a-f]{8}-", name)] == []


@pytest.mark.backends("sqlite", "sqlite-memory")
async def test_pragmas_are_set_on_every_connection(
    framework: str, backend: Backend, make_site: Any
) -> None:
    site = make_site(
        framework,
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_ENGINE_OPTIONS={
            "pragmas": {
                "foreign_keys": True,
                "busy_timeout": 1234,
                "synchronous": "off",
            }
        },
    )
    async with site.context():
        for engine in (site.db.sync.engine, site.db.aio.engine):
            assert await execute(engine, "PRAGMA foreign_keys") == [(1,)]
            assert await execute(engine, "PRAGMA busy_timeout") == [(1234,)]
            assert await execute(engine, "PRAGMA synchronous") == [(0,)]


@pytest.mark.backends("sqlite-memory")
class TestMemory:
    """An in-memory SQLite database is one for each app and bind key."""

    async def test_is_shared_by_apis_threads_and_connections(self, site: Site) -> None:
        async with site.context():
            await execute(site.db.sync.engine, "CREATE TABLE thing (id INTEGER)")
            await execute(site.db.sync.engine, "INSERT INTO thing VALUES (1)")
            in_thread = asyncio.to_thread(
                asyncio.run, execute(site.db.sync.engine, "SELECT id FROM thing")
            )
            assert await in_thread == [(1,)]
            async with site.db.aio.engine.connect() as one:
                async with site.db.aio.engine.connect() as two:
                    for connection in (one, two):
                        rows = await connection.execute(text("SELECT id FROM thing"))
                        assert rows.all() == [(1,)]

    async def test_keeps_transactions_apart(self, site: Site) -> None:
        async with site.context():
            engine = site.db.aio.engine
            await execute(engine, "CREATE TABLE thing (id INTEGER)")
            async with engine.connect() as writer:
                await writer.exec_driver_sql("INSERT INTO thing VALUES (1)")
                await writer.rollback()
            assert await execute(engine, "SELECT id FROM thing") == []

    async def test_lives_when_all_connections_are_closed(self, site: Site) -> None:
        async with site.context():
            await execute(site.db.aio.engine, "CREATE TABLE thing (id INTEGER)")
            await site.db.aio.dispose()
            site.db.sync.dispose()
            assert await execute(site.db.aio.engine, "SELECT id FROM thing") == []

    def test_is_shared_by_event_loops(
        self, backend: Backend, make_sync_site: Any
    ) -> None:
        site = make_sync_site("flask", SQLALCHEMY_DATABASE_URI=backend.url)

        async def run(sql: str) -> Any:
            with site.app.app_context():
                return await execute(site.db.aio.engine, sql)

        asyncio.run(run("CREATE TABLE thing (id INTEGER)"))
        asyncio.run(run("INSERT INTO thing VALUES (3)"))
        assert asyncio.run(run("SELECT id FROM thing")) == [(3,)]

    async def test_on_a_sqlite_without_the_memdb_vfs(
        self, framework: str, backend: Backend, make_site: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 35, 0))
        site = make_site(framework, SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            await execute(site.db.sync.engine, "CREATE TABLE thing (id INTEGER)")
            await execute(site.db.aio.engine, "INSERT INTO thing VALUES (7)")
            assert await execute(site.db.sync.engine, "SELECT id FROM thing") == [(7,)]

    async def test_is_another_for_another_key_or_app(
        self, framework: str, backend: Backend, make_site: Any
    ) -> None:
        config = {
            "SQLALCHEMY_DATABASE_URI": backend.url,
            "SQLALCHEMY_BINDS": {"other": "sqlite://"},
        }
        db = fresh_db()
        one, two = (make_site(framework, db, **config) for _ in range(2))
        async with one.context():
            await execute(db.engine, "CREATE TABLE thing (id INTEGER)")
            with pytest.raises(OperationalError, match="no such table"):
                await execute(db.engines["other"], "SELECT id FROM thing")
        async with two.context():
            with pytest.raises(OperationalError, match="no such table"):
                await execute(db.engine, "SELECT id FROM thing")

    async def test_pool_is_static_under_flask_only(self, site: Site) -> None:
        async with site.context():
            pool = site.db.sync.engine.pool
            assert isinstance(pool, StaticPool) is not site.is_async
            assert str(site.db.sync.engine.url) == "sqlite://"


class TestMissingDriver:
    async def test_is_an_error_at_first_use(
        self, make_site: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI="sqlite:///app.db")
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "aiosqlite", None)
            async with site.context():
                for _ in range(2):  # and is not forgotten
                    with pytest.raises(MissingDriverError) as caught:
                        await site.db.session.execute(text("SELECT 1"))
        assert str(caught.value) == (
            "SQLALCHEMY_DATABASE_URI: the async API needs a driver for 'sqlite', and"
            " none is installed. Install 'aiosqlite': pip install"
            ' "dualchemy[sqlite]".'
        )

    async def test_that_cannot_be_imported_says_why(
        self, make_site: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = make_site("flask", SQLALCHEMY_DATABASE_URI="postgresql+psycopg2://db/a")
        monkeypatch.setattr("dualchemy.urls.find_spec", lambda name: object())
        async with site.context():
            with pytest.raises(MissingDriverError) as caught:
                _ = site.db.engine
        assert str(caught.value) == (
            "SQLALCHEMY_DATABASE_URI: the driver of 'postgresql+psycopg2' is installed"
            " but cannot be imported: No module named 'psycopg2'"
        )


class TestContext:
    def test_without_one(self) -> None:
        db = SQLAlchemy()
        for use in (
            lambda: db.engine,
            lambda: db.engines,
            lambda: db.create_all(),
            lambda: db.get_or_404(object, 1),
            lambda: db.sync.session.connection(),
            lambda: db.aio.engine,
            lambda: db.sync.dispose(),
        ):
            with pytest.raises(ContextError) as caught:
                use()
            assert str(caught.value) == (
                "Working outside of application context: 'db.session', the engines and"
                " everything that uses them need one. In a script or a test, wrap the"
                " code in 'with app.app_context():' (Flask) or 'async with"
                " app.app_context():' (Quart)."
            )
            assert isinstance(caught.value, RuntimeError)

    async def test_of_another_app(self, framework: str, make_site: Any) -> None:
        site = make_site(framework, SQLALCHEMY_DATABASE_URI="sqlite://")
        other = Site(FRAMEWORKS[framework]("other"), None)
        async with other.context():
            with pytest.raises(ContextError) as caught:
                await resolve(site.db.session.execute(text("SELECT 1")))
        assert str(caught.value) == (
            "The current app 'other' is not registered with this 'SQLAlchemy' instance."
            " Did you forget to call 'init_app', or did you create multiple"
            " 'SQLAlchemy' instances?"
        )

    async def test_of_an_app_with_another_db(
        self, framework: str, make_site: Any
    ) -> None:
        site = make_site(framework, SQLALCHEMY_DATABASE_URI="sqlite://")
        async with site.context():
            await resolve(site.db.session.execute(text("SELECT 1")))
            with pytest.raises(
                ContextError, match="which has another one: <SQLAlchemy"
            ):
                _ = SQLAlchemy().session.registry()

    def test_async_api_without_an_event_loop(self, make_sync_site: Any) -> None:
        site = make_sync_site("flask", SQLALCHEMY_DATABASE_URI="sqlite://")
        with site.app.app_context(), pytest.raises(ContextError) as caught:
            _ = site.db.aio.engine
        assert str(caught.value) == (
            "The async API was used where no event loop is running. Use 'db.sync' here,"
            " or call this from an 'async def' function."
        )


async def test_quart_closes_connections_at_shutdown(make_site: Any) -> None:
    site = make_site("quart", SQLALCHEMY_DATABASE_URI="sqlite:///app.db")
    async with site.app.test_app():
        async with site.context():
            await execute(site.db.aio.engine, "SELECT 1")
            pool = site.db.aio.engine.pool
            assert pool.checkedin() == 1
    async with site.context():
        assert site.db.aio.engine.pool.checkedin() == 0


@pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
async def test_dispose_closes_connections_in_use_when_they_come_back(
    site: Site,
) -> None:
    closed = []
    async with site.context():
        engine = getattr(site.db.engine, "sync_engine", site.db.engine)
        event.listen(engine, "close", lambda *a: closed.append(a))
        event.listen(engine, "close_detached", lambda *a: closed.append(a))
        await resolve(site.db.session.execute(text("SELECT 1")))
        await resolve(site.db.dispose())
        assert (await resolve(site.db.session.execute(text("SELECT 2")))).scalar() == 2
        assert closed == []
    assert len(closed) == 1


async def test_dispose_keeps_the_engines(site: Site) -> None:
    async with site.context():
        engine = site.db.engine
        await execute(engine, "SELECT 1")
        await resolve(site.db.dispose())
        assert site.db.engine is engine
        connections = []
        target = getattr(engine, "sync_engine", engine)
        event.listen(target, "connect", lambda *a: connections.append(a))
        for _ in range(3):
            assert await execute(engine, "SELECT 1") == [(1,)]
        assert len(connections) == 1  # and the new pool keeps it


@pytest.mark.backends("sqlite", "sqlite-memory", "postgresql", "mariadb")
def test_connections_end_with_their_app(backend: Backend) -> None:
    app = FRAMEWORKS["flask"]("site")
    app.config["SQLALCHEMY_DATABASE_URI"] = backend.url
    db = SQLAlchemy(app)
    closed: list[object] = []
    with app.app_context():
        event.listen(db.sync.engine, "close", lambda *a: closed.append(a))
        db.session.execute(text("SELECT 1"))
    assert closed == []
    del app
    gc.collect()
    assert len(closed) == 1


async def test_savepoint_is_part_of_its_transaction(site: Site) -> None:
    """Also on SQLite, whose driver does not begin one for a savepoint by itself."""
    async with site.context():
        engine = site.db.engine
        await execute(engine, "CREATE TABLE thing (id INTEGER)")
        session = site.db.session
        await resolve(session.begin_nested())
        await resolve(session.execute(text("INSERT INTO thing VALUES (1)")))
        await resolve(session.rollback())
        assert await execute(engine, "SELECT id FROM thing") == []

        savepoint = await resolve(session.begin_nested())
        await resolve(session.execute(text("INSERT INTO thing VALUES (2)")))
        await resolve(savepoint.rollback())
        await resolve(session.execute(text("INSERT INTO thing VALUES (3)")))
        savepoint = await resolve(session.begin_nested())
        await resolve(session.execute(text("INSERT INTO thing VALUES (4)")))
        await resolve(savepoint.commit())
        await resolve(session.commit())
        rows = await execute(engine, "SELECT id FROM thing ORDER BY id")
        assert rows == [(3,), (4,)]


@pytest.mark.backends("sqlite")
async def test_savepoint_in_autocommit_is_left_alone(site: Site) -> None:
    async with site.context():
        engine = site.db.sync.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            with connection.begin_nested():
                connection.exec_driver_sql("CREATE TABLE thing (id INTEGER)")
            driver: Any = connection.connection.driver_connection
            assert not driver.in_transaction
        assert await execute(site.db.engine, "SELECT id FROM thing") == []


@pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")
class TestShutdown:
    """Nothing is left on the server, whatever was going on."""

    @pytest.fixture
    def slow(self, backend: Backend, make_site: Any) -> Any:
        """An app with a view that waits in the database."""
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        sleep = "sleep(20)" if backend.name == "mariadb" else "pg_sleep(20)"
        site.running = asyncio.Event()

        @site.app.get("/")
        async def view() -> str:
            await site.db.session.execute(text("SELECT 1"))
            site.running.set()
            await site.db.session.execute(text(f"SELECT {sleep}"))
            return "slept"

        return site

    async def connections(self, backend: Backend, server: Any) -> int:
        database = make_url(backend.url).database
        for _ in range(600):  # MariaDB looks every five seconds for who went away
            if server.connections(database) == 0:
                break
            await asyncio.sleep(0.01)
        return int(server.connections(database))

    async def test_of_a_server_with_a_request_in_flight(
        self, slow: Any, backend: Backend, server: Any
    ) -> None:
        async with serve(slow.app, graceful_timeout=0.1) as client:
            request = asyncio.create_task(client.get("/"))
            await slow.running.wait()
        with pytest.raises(httpx.HTTPError):
            await request
        assert await self.connections(backend, server) == 0

    async def test_dispose_with_a_request_in_flight(
        self, slow: Any, backend: Backend, server: Any
    ) -> None:
        request = slow.app.test_request_context("/").request
        task = asyncio.create_task(slow.app.handle_request(request))
        await slow.running.wait()
        async with slow.context():
            await slow.db.dispose()
        assert server.connections(make_url(backend.url).database) == 1
        task.cancel()
        await asyncio.wait([task])
        assert await self.connections(backend, server) == 0
