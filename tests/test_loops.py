"""Async connections never leave their event loop, and end with it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import flask
import pytest
from sqlalchemy import String, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site
from support.databases import Backend

from dualchemy import ContextError

if sys.platform != "win32":
    import uvloop

    LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
else:
    LOOPS = {"asyncio": asyncio.new_event_loop}

LIBRARIES = (
    "aiosqlite",
    "async",
    "dualchemy",
    "flask",
    "psycopg",
    "sqlalchemy",
    "sqlite",
)
"""Whose objects are counted; the rest may be the test runner's and coverage's."""

servers = pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")


@pytest.fixture(params=list(LOOPS))
def new_loop(request: Any) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes an event loop, of each kind in turn."""
    return LOOPS[request.param]


@pytest.fixture
def site(backend: Backend, make_sync_site: Any) -> Site:
    """A Flask app, whose code runs on the loops that a test makes."""
    made: Site = make_sync_site("flask", SQLALCHEMY_DATABASE_URI=backend.url)
    return made


@pytest.fixture
def opened(backend: Backend, request: Any) -> Callable[[], int]:
    """Count the connections of this test that are open: on the server, or the files
    of SQLite and the threads that hold them.
    """
    if backend.is_server:
        server = request.getfixturevalue("server")
        database = make_url(backend.url).database
        return lambda: server.connections(database)

    def threads() -> int:
        """SQLAlchemy has aiosqlite hold each connection in a daemon thread."""
        found = [thread for thread in threading.enumerate() if thread.daemon]
        for thread in found:
            thread.join(0.05)  # it may have been told to stop a moment ago
        return sum(thread.is_alive() for thread in found) - before

    before = 0
    before = threads()
    return threads


def descriptors() -> int:
    """The number of files and sockets that this process holds open."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208


async def ask(site: Site, sql: str = "SELECT 1") -> Any:
    with site.app.app_context():
        async with site.db.aio.sessionmaker() as session:
            return await session.scalar(text(sql))


def loops_of(site: Site) -> Any:
    return site.app.extensions["dualchemy"].engines._loops


class TestEnd:
    """However a loop ends, the connections that were made on it are closed first."""

    def test_by_asyncio_run(self, site: Site, opened: Any) -> None:
        async def work() -> int:
            assert await ask(site) == 1
            return int(opened())

        for _ in range(2):
            assert asyncio.run(work()) == 1
            assert opened() == 0
        assert not loops_of(site)

    def test_by_close_alone(self, site: Site, opened: Any, new_loop: Any) -> None:
        loop = new_loop()
        assert loop.run_until_complete(ask(site)) == 1
        assert opened() == 1
        loop.close()
        assert loop.is_closed()
        assert opened() == 0
        assert not loops_of(site)

    def test_by_close_while_another_loop_runs(
        self, site: Site, opened: Any, new_loop: Any
    ) -> None:
        loop = new_loop()
        assert loop.run_until_complete(ask(site)) == 1

        async def close() -> None:
            loop.close()

        asyncio.run(close())
        assert opened() == 0

    def test_by_close_in_another_thread(
        self, site: Site, opened: Any, new_loop: Any
    ) -> None:
        loop = new_loop()
        assert loop.run_until_complete(ask(site)) == 1
        thread = threading.Thread(target=loop.close)
        thread.start()
        thread.join()
        assert loop.is_closed()
        assert opened() == 0

    @pytest.mark.backends("sqlite")
    def test_close_of_a_running_loop_is_refused_as_ever(
        self, site: Site, new_loop: Any
    ) -> None:
        loop = new_loop()

        async def close() -> Any:
            await ask(site)
            with pytest.raises(RuntimeError):
                loop.close()
            return await ask(site)

        assert loop.run_until_complete(close()) == 1
        loop.close()
        loop.close()  # which does nothing
        assert not loops_of(site)

    @pytest.mark.backends("sqlite")
    def test_what_stood_in_for_close_before_is_called(
        self, site: Site, new_loop: Any
    ) -> None:
        loop = new_loop()
        called = []
        loop.close = lambda: (called.append(loop), type(loop).close(loop))
        loop.run_until_complete(ask(site))
        loop.close()
        assert called == [loop]
        assert loop.is_closed()
        assert not loops_of(site)

    @pytest.mark.backends("sqlite")
    def test_past_us_lets_go_at_the_next_loop(self, site: Site) -> None:
        """Nothing can be awaited any more, and nothing is."""
        loop = asyncio.new_event_loop()

        async def touch() -> None:
            with site.app.app_context():
                _ = site.db.aio.engine

        loop.run_until_complete(touch())
        type(loop).close(loop)
        assert list(loops_of(site)) == [loop]
        asyncio.run(touch())
        assert not loops_of(site)

    def test_closes_what_was_not_given_back(self, site: Site, opened: Any) -> None:
        """A session and a connection that code forgot to close."""
        kept = []

        async def work() -> None:
            with site.app.app_context():
                session = site.db.aio.sessionmaker()
                await session.execute(text("SELECT 1"))
                connection = await site.db.aio.engine.connect()
                kept.extend([session, connection])
                assert opened() == 2

        asyncio.run(work())
        assert opened() == 0
        # What forgot them finds them closed, and nothing complains at their end.
        kept.clear()
        gc.collect()

    @servers
    def test_while_a_task_waits_for_the_database(
        self, site: Site, opened: Any, backend: Backend
    ) -> None:
        sleep = (
            "SELECT sleep(30)" if backend.name == "mariadb" else "SELECT pg_sleep(30)"
        )

        async def work() -> None:
            task = asyncio.create_task(ask(site, sleep))
            while opened() == 0:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            tasks.append(task)

        tasks: list[asyncio.Task[Any]] = []
        asyncio.run(work())
        assert tasks[0].done()
        for _ in range(200):
            if opened() == 0:
                break
            threading.Event().wait(0.05)  # MariaDB looks every five seconds
        assert opened() == 0


class TestMany:
    def test_one_after_another(self, site: Site, opened: Any, backend: Backend) -> None:
        """Nothing accumulates: no socket, no thread, no object."""

        def after(loops: int) -> tuple[int, int, int]:
            for _ in range(loops):
                assert asyncio.run(ask(site)) == 1
            gc.collect()
            objects = [str(type(each).__module__) for each in gc.get_objects()]
            ours = sum(module.startswith(LIBRARIES) for module in objects)
            return descriptors(), threading.active_count(), ours

        loops = 200 if backend.is_server else 1000
        before, now = after(50), after(loops)
        assert now[:2] == before[:2]
        assert now[2] - before[2] < 50
        assert opened() == 0

    def test_at_once_in_threads(self, site: Site, opened: Any) -> None:
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(10):
                    assert asyncio.run(ask(site)) == 1
            except BaseException as error:  # noqa: BLE001 - shown by the assertion
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert opened() == 0
        assert not loops_of(site)


class TestForeignLoop:
    """What belongs to one loop is refused on another, before it is touched."""

    def test_engine_of_a_loop_that_ended(self, site: Site, opened: Any) -> None:
        async def keep() -> Any:
            with site.app.app_context():
                async with site.db.aio.engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
                return site.db.aio.engine

        engine = asyncio.run(keep())

        async def use() -> None:
            with pytest.raises(ContextError) as caught:
                async with engine.connect():
                    pass
            assert str(caught.value) == (
                "An async engine was used on an event loop that is not its own. Take"
                " 'db.aio.engine' anew on each loop, and do not keep a session for"
                " another one."
            )

        asyncio.run(use())
        assert opened() == 0

    def test_pooled_connection_of_another_loop(
        self, site: Site, opened: Any, new_loop: Any
    ) -> None:
        loop = new_loop()
        loop.run_until_complete(ask(site))

        async def keep() -> Any:
            with site.app.app_context():
                return site.db.aio.engine

        engine = loop.run_until_complete(keep())

        async def use() -> None:
            with pytest.raises(ContextError, match="not its own"):
                async with engine.connect():
                    pass

        asyncio.run(use())
        assert loop.run_until_complete(ask(site)) == 1
        assert engine.pool.checkedin() == 1
        loop.close()
        assert opened() == 0

    def test_closed_session_begins_anew_on_the_next_loop(
        self, site: Site, opened: Any
    ) -> None:
        with site.app.app_context():
            session = site.db.aio.sessionmaker()

        async def work() -> Any:
            with site.app.app_context():
                found = await session.scalar(text("SELECT 1"))
                await session.close()
                return found

        assert [asyncio.run(work()) for _ in range(2)] == [1, 1]
        assert opened() == 0


class TestFlaskAsyncViews:
    """Each runs on a loop of its own, where its session and connection end."""

    @pytest.fixture
    def User(self, site: Site) -> Any:
        class User(site.db.Model):  # type: ignore[name-defined]
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str] = mapped_column(String(20))

        with site.app.app_context():
            site.db.create_all()
            site.db.session.add(User(name="ada"))
            site.db.session.commit()
            site.db.sync.dispose()
        return User

    def test_result(self, site: Site, User: Any, opened: Any) -> None:
        @site.app.get("/")
        async def view() -> str:
            user = await site.db.aio.get_or_404(User, 1)
            # Its own loop is still running; the connection is in use.
            assert opened() == 1
            return str(user.name)

        client = site.app.test_client()
        for _ in range(3):
            assert client.get("/").text == "ada"
            assert opened() == 0

    def test_error(self, site: Site, User: Any, opened: Any) -> None:
        @site.app.get("/<error>")
        async def view(error: str) -> str:
            site.db.aio.session.add(User(name="grace"))
            await site.db.aio.session.flush()
            if error == "404":
                await site.db.aio.get_or_404(User, 99)
            raise ZeroDivisionError

        site.app.testing = False
        site.app.logger.disabled = True
        client = site.app.test_client()
        for error, status in (("404", 404), ("other", 500)):
            assert client.get(f"/{error}").status_code == status
            assert opened() == 0
        with site.app.app_context():
            assert site.db.paginate(site.db.select(User)).total == 1

    def test_stream(self, site: Site, User: Any, opened: Any) -> None:
        """The rest of the response is made after the view's loop has ended."""
        sessions = []

        @site.app.get("/")
        async def view() -> Any:
            user = await site.db.aio.get_or_404(User, 1)
            assert user.name == "ada"

            @flask.stream_with_context
            def rows() -> Any:
                for found in site.db.session.scalars(site.db.select(User)):
                    sessions.append(site.db.session())
                    yield found.name

            return rows()

        response = site.app.test_client().get("/")
        assert response.text == "ada"
        response.close()
        assert not sessions[0].in_transaction()
        with site.app.app_context():
            site.db.sync.dispose()
        assert opened() == 0

    def test_functions_around_the_view(
        self, site: Site, User: Any, opened: Any
    ) -> None:
        """Flask runs each of them on a loop of its own, within one app context."""
        heard = []

        async def look(*_: Any) -> None:
            heard.append((await site.db.aio.get_or_404(User, 1)).name)

        site.app.before_request(look)
        site.app.teardown_request(look)
        site.app.teardown_appcontext(look)

        @site.app.get("/")
        async def view() -> str:
            await look()
            return "seen"

        assert site.app.test_client().get("/").text == "seen"
        assert heard == ["ada"] * 4
        assert opened() == 0

    def test_both_apis_in_one_view(self, site: Site, User: Any, opened: Any) -> None:
        @site.app.get("/")
        async def view() -> str:
            mine = await site.db.aio.get_or_404(User, 1)
            yours = site.db.session.get(User, 1)
            assert mine is not yours
            return str(mine.name + yours.name)

        assert site.app.test_client().get("/").text == "adaada"
        with site.app.app_context():
            site.db.sync.dispose()
        assert opened() == 0

    def test_concurrent_requests(self, site: Site, User: Any, opened: Any) -> None:
        @site.app.get("/")
        async def view() -> str:
            return str((await site.db.aio.get_or_404(User, 1)).name)

        found: list[str] = []

        def visit() -> None:
            found.extend(site.app.test_client().get("/").text for _ in range(5))

        threads = [threading.Thread(target=visit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == ["ada"] * 20
        assert opened() == 0


@servers
def test_lost_connection_does_not_hinder_the_end(
    site: Site, opened: Any, server: Any, backend: Backend
) -> None:
    async def work() -> None:
        with site.app.app_context():
            session = site.db.aio.sessionmaker()
            await session.execute(text("SELECT 1"))
            server.disconnect_all(make_url(backend.url).database)
            with pytest.raises(DBAPIError):
                await session.execute(text("SELECT 1"))

    asyncio.run(work())
    assert opened() == 0


class Proxy:
    """Stands between an app and a server, in a thread of its own, and may fall silent."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._silent = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        self._start(self._accept)

    def _start(self, target: Any, *args: Any) -> None:
        threading.Thread(target=target, args=args).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._path)
            self._sockets += [client, server]
            self._start(self._pass_on, client, server)
            self._start(self._pass_on, server, client)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self._silent.is_set():
                    target.sendall(data)
        except OSError:
            return

    def fall_silent(self) -> None:
        self._silent.set()

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.mark.backends("postgresql", "postgresql-psycopg")
def test_server_that_fell_silent_does_not_hold_the_end(
    backend: Backend, make_sync_site: Any, monkeypatch: Any, server: Any
) -> None:
    """And no connection is left to the garbage collector."""
    if not server.is_private:
        pytest.skip("only the private server is known to listen on a socket file")
    monkeypatch.setattr("dualchemy.loops.GRACE", 0.3)
    url = make_url(backend.url)
    proxy = Proxy(f"{url.query['host']}/.s.PGSQL.5432")
    through = url.set(host="127.0.0.1", port=proxy.port, query={"sslmode": "disable"})
    site = make_sync_site(
        "flask",
        SQLALCHEMY_DATABASE_URI=through.render_as_string(hide_password=False),
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 3},
    )

    async def work() -> None:
        with site.app.app_context():
            engine = site.db.aio.engine
            for connection in [await engine.connect() for _ in range(3)]:
                await connection.close()
            proxy.fall_silent()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    left = [each for each in gc.get_objects() if isinstance(each, asyncio.Transport)]
    assert all(each.is_closing() for each in left)
    proxy.close()
    gc.collect()
