"""Each context has its own session, for as long as it lasts, and no longer."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import flask
import pytest
import quart
import websockets
from quart import (
    copy_current_app_context,
    copy_current_request_context,
    copy_current_websocket_context,
)
from sqlalchemy import String, event, select, text
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site, resolve, serve
from support.databases import Backend

from dualchemy import ContextError

ENDED = "The app context in which this code was started has ended"


def in_use(site: Site) -> int:
    """How many connections of the app's own API are in use."""
    return int(site.api.engine.pool.checkedout())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def define_user(db: Any) -> Any:
    class User(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20), default="ada")

    return User


@pytest.fixture
def quart_site(make_site: Any) -> Site:
    made: Site = make_site(
        "quart", SQLALCHEMY_DATABASE_URI="sqlite:///app.db", PROPAGATE_EXCEPTIONS=True
    )
    return made


class TestQuart:
    async def test_tasks_that_copied_the_context(self, quart_site: Site) -> None:
        site = quart_site
        sessions = []

        async def work() -> None:
            await site.db.session.execute(text("SELECT 1"))
            sessions.append(site.db.session())

        async with site.context():
            await work()
            await asyncio.gather(
                copy_current_app_context(work)(), copy_current_app_context(work)()
            )
            assert len(set(sessions)) == 3
            assert sessions[0].in_transaction()
            assert not sessions[1].in_transaction()
            assert not sessions[2].in_transaction()

    async def test_tasks_that_copied_the_request(self, quart_site: Site) -> None:
        site = quart_site
        sessions = []

        async def work() -> str:
            await site.db.session.execute(text("SELECT 1"))
            sessions.append(site.db.session())
            return str(quart.request.path)

        @site.app.get("/here")
        async def view() -> list[str]:
            own = await work()
            others = (copy_current_request_context(work) for _ in range(2))
            found = await asyncio.gather(*(other() for other in others))
            assert sessions[0].in_transaction()
            return [own, *found]

        assert await site.get("/here") == (200, '["/here","/here","/here"]\n')
        assert len(set(sessions)) == 3
        assert not any(session.in_transaction() for session in sessions)

    async def test_task_that_copied_the_websocket(self, quart_site: Site) -> None:
        site = quart_site
        sessions = []

        async def work() -> Any:
            sessions.append(site.db.session())
            return await site.db.session.scalar(text("SELECT 7"))

        @site.app.websocket("/ws")
        async def answer() -> None:
            await work()
            found = await copy_current_websocket_context(work)()
            assert sessions[0].in_transaction()
            assert not sessions[1].in_transaction()
            await quart.websocket.send(str(found))

        async with site.app.test_client().websocket("/ws") as connection:
            assert await connection.receive() == "7"
        assert sessions[0] is not sessions[1]
        await until(lambda: not sessions[0].in_transaction())

    async def test_background_task(self, quart_site: Site) -> None:
        site = quart_site
        User = define_user(site.db)
        done = asyncio.Event()
        sessions = []

        async def work() -> None:
            site.db.session.add(User())
            await site.db.session.commit()
            sessions.append(site.db.session())
            done.set()

        @site.app.get("/")
        async def start() -> str:
            sessions.append(site.db.session())
            site.app.add_background_task(work)
            return "started"

        async with serve(site.app) as client:
            async with site.context():
                await site.db.create_all()
            assert (await client.get("/")).text == "started"
            await asyncio.wait_for(done.wait(), 10)
        assert sessions[0] is not sessions[1]
        async with site.context():
            assert (await site.db.get_or_404(User, 1)).name == "ada"
            assert in_use(site) == 1

    async def test_streamed_response(self, quart_site: Site) -> None:
        site = quart_site
        sessions = []

        @site.app.get("/")
        async def stream() -> Any:
            sessions.append(site.db.session())

            @quart.stream_with_context
            async def rows() -> AsyncIterator[str]:
                for number in range(3):
                    row = await site.db.session.scalar(text(f"SELECT {number}"))
                    sessions.append(site.db.session())
                    yield f"{row}\n"

            return rows()

        async with serve(site.app) as client:
            assert (await client.get("/")).text == "0\n1\n2\n"
        assert len(set(sessions[1:])) == 1
        await until(lambda: not sessions[-1].in_transaction())

    async def test_streamed_response_whose_client_goes_away(
        self, quart_site: Site
    ) -> None:
        site = quart_site
        streaming = asyncio.Event()

        @site.app.get("/")
        async def stream() -> Any:
            @quart.stream_with_context
            async def rows() -> AsyncIterator[str]:
                while True:
                    await site.db.session.execute(text("SELECT 1"))
                    yield "row\n"
                    streaming.set()
                    await asyncio.sleep(0.01)

            return rows()

        async with serve(site.app) as client:
            _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n")
            await asyncio.wait_for(streaming.wait(), 10)
            async with site.context():
                assert in_use(site) == 1
                writer.close()
                await until(lambda: in_use(site) == 0)

    async def test_websocket_gives_its_connection_back_between_messages(
        self, quart_site: Site
    ) -> None:
        """Over a real server, in each of the ways that the docs name."""
        site = quart_site

        @site.app.websocket("/<way>")
        async def answer(way: str) -> None:
            await quart.websocket.accept()
            while True:
                message = await quart.websocket.receive()
                if way == "sessionmaker":
                    async with site.db.aio.sessionmaker() as session:
                        found = await session.scalar(text(f"SELECT {message}"))
                else:
                    found = await site.db.session.scalar(text(f"SELECT {message}"))
                    await getattr(site.db.session, way)()
                await quart.websocket.send(f"{found}, {in_use(site)} in use")

        async with serve(site.app) as client:
            for way in ("sessionmaker", "commit", "rollback", "close", "remove"):
                url = f"ws://127.0.0.1:{client.base_url.port}/{way}"
                async with websockets.connect(url) as connection:
                    for number in range(2):
                        await connection.send(str(number))
                        assert await connection.recv() == f"{number}, 0 in use"

    async def test_websocket_that_is_closed_or_fails(self, quart_site: Site) -> None:
        site = quart_site
        site.app.logger.disabled = True
        sessions = []

        @site.app.websocket("/<ending>")
        async def answer(ending: str) -> None:
            await quart.websocket.accept()
            await site.db.session.execute(text("SELECT 1"))
            sessions.append(site.db.session())
            await quart.websocket.send("here")
            if ending == "fails":
                raise ZeroDivisionError
            await quart.websocket.receive()

        async with serve(site.app) as client:
            for ending in ("fails", "closes"):
                url = f"ws://127.0.0.1:{client.base_url.port}/{ending}"
                async with websockets.connect(url) as connection:
                    assert await connection.recv() == "here"
                await until(lambda: not sessions[-1].in_transaction())

    async def test_functions_around_serving(self, quart_site: Site) -> None:
        """Those at the start share a context, and those at the end another."""
        site = quart_site
        sessions = []

        async def use() -> None:
            await site.db.session.execute(text("SELECT 1"))
            sessions.append(site.db.session())

        site.app.before_serving(use)
        site.app.after_serving(use)

        @site.app.while_serving
        async def around() -> AsyncIterator[None]:
            await use()
            yield
            await use()

        async with site.app.test_app():
            assert len(sessions) == 2
            assert not any(session.in_transaction() for session in sessions)
        assert len(sessions) == 4
        assert len(set(sessions)) == 2
        assert not any(session.in_transaction() for session in sessions)

    async def test_sync_view_is_closed_in_a_thread(self, quart_site: Site) -> None:
        """For closing may wait for the database, and would stop the event loop."""
        site = quart_site
        closed_in: list[threading.Thread] = []

        @site.app.get("/")
        def view() -> str:
            session = site.db.sync.session()
            session.execute(text("SELECT 1"))
            event.listen(
                session,
                "after_transaction_end",
                lambda *_: closed_in.append(threading.current_thread()),
            )
            return "done"

        assert await site.get("/") == (200, "done")
        assert len(closed_in) == 1
        assert closed_in[0] is not threading.current_thread()

    async def test_async_view_is_closed_on_the_loop(self, quart_site: Site) -> None:
        site = quart_site
        closed_in: list[threading.Thread] = []

        @site.app.get("/")
        async def view() -> str:
            await site.db.session.execute(text("SELECT 1"))
            event.listen(
                site.db.session().sync_session,
                "after_transaction_end",
                lambda *_: closed_in.append(threading.current_thread()),
            )
            return "done"

        assert await site.get("/") == (200, "done")
        assert closed_in == [threading.current_thread()]


@pytest.mark.backends("sqlite")
class TestBoth:
    async def test_g_may_be_replaced(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        framework: Any = quart if site.is_async else flask

        class Own:
            pass

        site.app.app_ctx_globals_class = Own
        async with site.context():
            await resolve(site.db.session.execute(text("SELECT 1")))
            session = site.db.session()
            monkeypatch.setattr(framework, "g", object())
            monkeypatch.setattr(framework.globals, "g", object())
            site.app.app_context().g = None
            assert site.db.session() is session
        assert not session.in_transaction()

    async def test_cli_command(self, site: Site) -> None:
        sessions = []

        def use() -> None:
            session = site.db.sync.session
            session.execute(text("SELECT 1"))
            sessions.append(session())

        site.app.cli.command("use", with_appcontext=True)(use)
        result = await asyncio.to_thread(
            site.app.test_cli_runner().invoke, args=["use"]
        )
        assert result.exception is None
        assert not sessions[0].in_transaction()

    async def test_context_that_is_pushed_again(self, site: Site) -> None:
        context = site.app.app_context()
        sessions = []
        for _ in range(2):
            await resolve(context.push())
            await resolve(site.db.session.execute(text("SELECT 1")))
            sessions.append(site.db.session())
            await resolve(context.pop(None))
            assert not sessions[-1].in_transaction()
        assert sessions[0] is not sessions[1]

    async def test_context_that_was_pushed_twice(self, site: Site) -> None:
        context = site.app.app_context()
        for _ in range(2):
            await resolve(context.push())
        await resolve(site.db.session.execute(text("SELECT 1")))
        session = site.db.session()
        await resolve(context.pop(None))
        assert site.db.session() is session
        assert session.in_transaction()
        await resolve(context.pop(None))
        assert not session.in_transaction()


class TestAfterTheEnd:
    """Code that outlives the context it was started in opens nothing in it any more."""

    @pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
    async def test_task_that_kept_the_session(
        self, backend: Backend, make_site: Any
    ) -> None:
        site: Site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)

        async def stray(go: asyncio.Event) -> None:
            session = site.db.session()
            await go.wait()
            await session.execute(text("SELECT 1"))

        go = asyncio.Event()
        async with site.context():
            task = asyncio.create_task(stray(go))
            await site.db.session.execute(text("SELECT 1"))
        go.set()
        with pytest.raises(ContextError, match=ENDED):
            await task
        async with site.context():
            assert in_use(site) == 0

    async def test_task_that_uses_db_for_the_first_time(self, quart_site: Site) -> None:
        site = quart_site

        async def stray(go: asyncio.Event, use: Callable[[], Any]) -> Any:
            await go.wait()
            return await use()

        async def own_session() -> Any:
            async with site.db.aio.sessionmaker() as session:
                return await session.scalar(text("SELECT 7"))

        async def own_context() -> Any:
            async with site.app.app_context():
                return await site.db.session.scalar(text("SELECT 7"))

        go = asyncio.Event()
        async with site.context():
            refused = [
                asyncio.create_task(stray(go, use))
                for use in (
                    lambda: site.db.session.execute(text("SELECT 1")),
                    lambda: asyncio.to_thread(lambda: site.db.sync.session()),
                )
            ]
            served = [
                asyncio.create_task(stray(go, use))
                for use in (own_session, own_context)
            ]
            await asyncio.sleep(0)
        go.set()
        for task in refused:
            with pytest.raises(ContextError) as caught:
                await task
            assert str(caught.value) == (
                "The app context in which this code was started has ended, and its"
                " session with it: nobody would close what is opened now. Give a task"
                " or a thread that outlives a request a context of its own, by"
                " 'app.add_background_task' (Quart), 'async with app.app_context():'"
                " (Quart) or 'with app.app_context():' (Flask), or a session of its"
                " own, by 'db.aio.sessionmaker()' or 'db.sync.sessionmaker()'."
            )
        for task in served:
            assert await task == 7
        async with site.context():
            assert in_use(site) == 0

    @pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")
    @pytest.mark.parametrize("way", ["session", "attribute"])
    async def test_task_within_an_operation_ends_it(
        self, backend: Backend, make_site: Any, way: str
    ) -> None:
        """The request does not wait for it, and its connection comes back after it."""
        site: Site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        User = define_user(site.db)
        sleep = "sleep(0.3)" if backend.name == "mariadb" else "pg_sleep(0.3)"
        async with site.context():
            await site.db.create_all()
            site.db.session.add(User())
            await site.db.session.commit()
        found = []

        async def stray(user: Any) -> None:
            if way == "session":
                await site.db.session.execute(text(f"SELECT {sleep}"))
            else:
                await user.awaitable_attrs.name
            found.append("done")
            await site.db.session.execute(text("SELECT 1"))

        if way == "attribute":  # loading one sleeps
            sync_engine: Any

            def wait(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
                if "SELECT" in statement and "name" in statement and not found:
                    cursor.execute(f"SELECT {sleep}")

        async with site.context():
            user = await site.db.get_or_404(User, 1)
            if way == "attribute":
                site.db.session.expire(user)
                sync_engine = site.db.engine.sync_engine
                event.listen(sync_engine, "before_cursor_execute", wait)
            task = asyncio.create_task(stray(user))
            await asyncio.sleep(0.1)
            session = site.db.session()
            pool = site.db.engine.pool
        assert not task.done()
        assert pool.checkedout() == 1
        with pytest.raises(ContextError, match=ENDED):
            await task
        assert found == ["done"]
        assert not session.in_transaction()
        assert pool.checkedout() == 0

    @pytest.mark.backends("sqlite")
    async def test_session_that_is_kept_for_a_later_context(self, site: Site) -> None:
        async with site.context():
            session = site.db.session()
        async with site.context():
            found = await resolve(session.scalar(text("SELECT 7")))
            assert found == 7
            await resolve(session.close())
            assert in_use(site) == 0

    @pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")
    async def test_operation_of_several_statements_comes_to_its_end(
        self, backend: Backend, make_site: Any
    ) -> None:
        site: Site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        sleep = "sleep(0.2)" if backend.name == "mariadb" else "pg_sleep(0.2)"

        def two(session: Any) -> Any:
            session.execute(text(f"SELECT {sleep}"))
            session.commit()
            return session.scalar(text("SELECT 7"))

        async def stray() -> Any:
            return await site.db.session().run_sync(two)

        async with site.context():
            task = asyncio.create_task(stray())
            await asyncio.sleep(0.1)
            pool = site.db.engine.pool
        assert await task == 7
        assert pool.checkedout() == 0

    def test_thread_that_copied_the_context(self, make_sync_site: Any) -> None:
        site = make_sync_site("flask", SQLALCHEMY_DATABASE_URI="sqlite:///app.db")
        errors: list[BaseException] = []
        go = threading.Event()

        def stray(session: Any) -> None:
            go.wait(10)
            for use in (session, site.db.session):
                try:
                    use.execute(text("SELECT 1"))
                except ContextError as error:
                    errors.append(error)

        with site.app.app_context():
            session = site.db.session()
            session.execute(text("SELECT 1"))
            copied = contextvars.copy_context()
            thread = threading.Thread(target=copied.run, args=(stray, session))
            thread.start()
        go.set()
        thread.join()
        assert [str(error).startswith(ENDED) for error in errors] == [True, True]
        with site.app.app_context():
            assert in_use(site) == 0


@pytest.mark.backends("sqlite", "postgresql", "mariadb")
async def test_threads_under_flask(backend: Backend, make_site: Any) -> None:
    """A real server with a thread for each request."""
    site: Site = make_site("flask", SQLALCHEMY_DATABASE_URI=backend.url)
    User = define_user(site.db)
    sessions = []
    with site.app.app_context():
        site.db.create_all()

    @site.app.post("/<name>")
    def create(name: str) -> str:
        site.db.session.add(User(name=name))
        site.db.session.commit()
        sessions.append(site.db.session())
        return str(site.db.one_or_404(select(User).filter_by(name=name)).name)

    async with serve(site.app) as client:
        names = [f"user {number}" for number in range(40)]
        answers = await asyncio.gather(*(client.post(f"/{name}") for name in names))
    assert [answer.text for answer in answers] == names
    assert len(set(sessions)) == 40
    assert not any(session.in_transaction() for session in sessions)
    with site.app.app_context():
        assert in_use(site) == 0


async def test_context_that_is_never_popped(quart_site: Site) -> None:
    """Its session is closed when it is collected, and SQLAlchemy has no complaint."""
    site = quart_site

    async def work() -> None:
        await site.app.app_context().push()
        await site.db.session.execute(text("SELECT 1"))

    await asyncio.create_task(work())
    await asyncio.sleep(0)  # the loop lets go of the task
    gc.collect()
    async with site.context():
        await until(lambda: in_use(site) == 0)
