"""Whose session is ``db.session``, when is it opened, and when is it closed?"""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
import quart
from flask import Flask
from sqlalchemy import create_engine, event, inspect, orm, select, text
from sqlalchemy.ext.asyncio import async_scoped_session
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site, fresh_db, resolve

from dualchemy import ConcurrentUseError, ContextError, Session, SQLAlchemy
from dualchemy.async_sessions import AsyncSession


def checked_out(site: Site) -> int:
    """How many connections of the app are in use."""
    engines = [*site.db.sync.engines.values()]
    if site.is_async:
        engines += [each.sync_engine for each in site.db.aio.engines.values()]
    return sum(each.pool.checkedout() for each in engines)


def define_user(db: Any) -> Any:
    class User(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(default="ada")

    return User


@pytest.mark.backends("sqlite")
class TestLifetime:
    async def test_is_opened_on_first_use_only(self, site: Site) -> None:
        opened: list[object] = []
        event.listen(
            site.db.sync.sessionmaker, "after_begin", lambda *a: opened.append(a)
        )

        async with site.context():
            assert not site.api.session.registry.has()
            assert not opened
            await resolve(site.db.session.execute(text("SELECT 1")))
            assert site.api.session.registry.has()
            assert len(opened) == 1

    async def test_is_the_same_within_a_context_and_another_in_the_next(
        self, site: Site
    ) -> None:
        async with site.context():
            first = site.db.session()
            assert site.db.session() is first
        async with site.context():
            assert site.db.session() is not first

    async def test_is_closed_at_the_end(self, site: Site) -> None:
        async with site.context():
            await resolve(site.db.session.execute(text("SELECT 1")))
            session = site.db.session()
            assert checked_out(site) == 1
        assert not session.in_transaction()
        async with site.context():
            assert checked_out(site) == 0

    async def test_is_closed_after_an_exception(self, site: Site) -> None:
        with pytest.raises(ZeroDivisionError):
            async with site.context():
                await resolve(site.db.session.execute(text("SELECT 1")))
                session = site.db.session()
                raise ZeroDivisionError
        assert not session.in_transaction()

    async def test_is_closed_after_a_teardown_function_that_raises(
        self, site: Site
    ) -> None:
        @site.app.teardown_appcontext
        def fail(error: BaseException | None) -> None:
            raise ZeroDivisionError

        with pytest.raises(Exception) as caught:  # noqa: PT011 - some versions group it
            async with site.context():
                await resolve(site.db.session.execute(text("SELECT 1")))
                session = site.db.session()
        assert "ZeroDivisionError" in repr(caught.value)
        assert not session.in_transaction()
        site.app.teardown_appcontext_funcs.clear()

    async def test_session_of_a_teardown_function_is_closed_too(
        self, site: Site
    ) -> None:
        sessions = []

        async def use(error: BaseException | None) -> None:
            await resolve(site.db.session.execute(text("SELECT 1")))
            sessions.append(site.db.session())

        def use_sync(error: BaseException | None) -> None:
            site.db.session.execute(text("SELECT 1"))
            sessions.append(site.db.session())

        site.app.teardown_appcontext(use if site.is_async else use_sync)
        async with site.context():
            pass
        assert len(sessions) == 1
        assert not sessions[0].in_transaction()

    async def test_nested_contexts_have_their_own(self, site: Site) -> None:
        async with site.context():
            outer = site.db.session()
            await resolve(outer.execute(text("SELECT 1")))
            async with site.context():
                assert site.db.session() is not outer
                await resolve(site.db.session.execute(text("SELECT 1")))
            assert site.db.session() is outer
            assert outer.in_transaction()

    async def test_remove_closes_now(self, site: Site) -> None:
        async with site.context():
            session = site.db.session()
            await resolve(session.execute(text("SELECT 1")))
            await resolve(site.db.session.remove())
            assert not session.in_transaction()
            assert site.db.session() is not session

    async def test_in_a_request(self, site: Site) -> None:
        async with site.request():
            await resolve(site.db.session.execute(text("SELECT 1")))
            session = site.db.session()
        assert not session.in_transaction()

    async def test_leaves_nothing_on_g(self, site: Site) -> None:
        async with site.context():
            await resolve(site.db.session.execute(text("SELECT 1")))
            g = quart.g if site.is_async else __import__("flask").g
            assert list(g) == []

    async def test_is_collected_with_its_context(self, site: Site) -> None:
        import weakref

        async with site.context():
            await resolve(site.db.session.execute(text("SELECT 1")))
            session = weakref.ref(site.db.session())
        gc.collect()
        assert session() is None


@pytest.mark.backends("sqlite")
async def test_context_without_database_opens_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No session, no engine, no thread."""
    threads: list[threading.Thread] = []
    start = threading.Thread.start
    monkeypatch.setattr(
        threading.Thread, "start", lambda t: (threads.append(t), start(t))[1]
    )

    async with site.context():
        pass

    assert threads == []
    engines = site.app.extensions["dualchemy"].engines
    assert engines.sync.made == {}
    assert engines._loops == {}


@pytest.mark.backends("sqlite", "postgresql", "mariadb")
class TestBothApis:
    """``db.sync`` and ``db.aio`` work in either framework."""

    async def test_sync_api_in_a_thread_of_quart(
        self, backend: Any, make_site: Any
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        User = define_user_with_length(site.db)
        sessions = []

        @site.app.get("/")
        def view() -> str:  # a plain function, which Quart runs in a thread
            site.db.sync.create_all()
            site.db.sync.session.add(User(name="grace"))
            site.db.sync.session.commit()
            assert User.query.count() == 1
            sessions.append(site.db.sync.session())
            return str(site.db.sync.get_or_404(User, 1).name)

        assert await site.get("/") == (200, "grace")
        assert not sessions[0].in_transaction()

    def test_async_view_in_flask(self, backend: Any, make_sync_site: Any) -> None:
        site = make_sync_site("flask", SQLALCHEMY_DATABASE_URI=backend.url)
        User = define_user_with_length(site.db)
        sessions = []

        @site.app.get("/")
        async def view() -> str:
            await site.db.aio.create_all()
            site.db.aio.session.add(User(name="grace"))
            await site.db.aio.session.commit()
            user = await site.db.aio.get_or_404(User, 1)
            sessions.append(site.db.aio.session())
            return str(user.name)

        for _ in range(3):
            response = site.app.test_client().get("/")
            assert response.get_data(as_text=True) == "grace"
        assert len(set(sessions)) == 3
        assert not any(session.in_transaction() for session in sessions)
        assert site.app.extensions["dualchemy"].engines._loops == {}

    def test_script_on_several_loops(self, backend: Any, make_sync_site: Any) -> None:
        site = make_sync_site("flask", SQLALCHEMY_DATABASE_URI=backend.url)
        User = define_user_with_length(site.db)

        async def work(number: int) -> int:
            with site.app.app_context():
                await site.db.aio.create_all()
                async with site.db.aio.sessionmaker.begin() as session:
                    session.add(User(name=f"number {number}"))
                return len((await site.db.aio.session.scalars(select(User))).all())

        assert [asyncio.run(work(number)) for number in range(3)] == [1, 2, 3]

    async def test_one_listener_hears_both(self, backend: Any, make_site: Any) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        heard = []
        event.listen(site.db.sync.session, "after_commit", heard.append)

        async with site.context():
            site.db.sync.session.commit()
            await site.db.aio.session.commit()

        assert len(heard) == 2


@pytest.mark.backends("sqlite")
class TestEvents:
    """Listeners hear of the sessions that they were registered for, and of no other."""

    async def test_listener_of_one_session(self, site: Site) -> None:
        User = define_user(site.db)
        heard = []
        async with site.context():
            await resolve(site.db.create_all())
            session, other = site.api.sessionmaker(), site.api.sessionmaker()
            for name in ("after_begin", "after_flush", "after_commit"):

                def listener(each: Any, *args: Any, name: str = name) -> None:
                    heard.append((name, each))

                event.listen(getattr(session, "sync_session", session), name, listener)
            for each in (other, session):
                each.add(User())
                await resolve(each.commit())
                await resolve(each.close())
        assert [name for name, _ in heard] == [
            "after_begin",
            "after_flush",
            "after_commit",
        ]
        assert {each for _, each in heard} == {
            getattr(session, "sync_session", session)
        }

    async def test_listener_that_comes_after_the_session(self, site: Site) -> None:
        heard = []

        def of_ours(session: Any) -> None:
            heard.append("ours")

        def of_any(session: Any) -> None:
            heard.append("any")

        async with site.context():
            await resolve(site.db.session.execute(text("SELECT 1")))
            event.listen(site.db.sync.session, "after_commit", of_ours)
            event.listen(orm.Session, "after_commit", of_any)
            try:
                await resolve(site.db.session.commit())
            finally:
                event.remove(orm.Session, "after_commit", of_any)
            assert sorted(heard) == ["any", "ours"]
            await resolve(site.db.session.commit())
            assert heard[2:] == ["ours"]


def define_user_with_length(db: Any) -> Any:
    from sqlalchemy import String

    class User(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20), default="ada")

    return User


@pytest.mark.backends("sqlite", "postgresql")
async def test_sessionmaker_makes_routed_sessions_of_ones_own(
    site: Site, backend: Any
) -> None:
    User = define_user(site.db)
    maker = site.api.sessionmaker

    async with site.context():
        await resolve(site.db.create_all())
        if site.is_async:
            async with maker.begin() as session:
                session.add(User(name="grace"))
        else:
            with maker.begin() as session:
                session.add(User(name="grace"))
        assert session is not site.db.session()
        async with site.session() as session:
            users = (await resolve(session.scalars(select(User)))).all()
        assert [user.name for user in users] == ["grace"]


@pytest.mark.backends("sqlite")
class TestOptions:
    async def test_async_sessions_do_not_expire_on_commit(self, site: Site) -> None:
        User = define_user(site.db)
        async with site.context():
            await resolve(site.db.create_all())
            user = User()
            site.db.session.add(user)
            await resolve(site.db.session.commit())
            assert ("name" in user.__dict__) is site.is_async

    async def test_apply_to_both_apis(
        self, framework: str, backend: Any, make_site: Any
    ) -> None:
        class MySession(Session):
            pass

        options = {"class_": MySession, "expire_on_commit": True, "autoflush": False}
        db = fresh_db(session_options=options)
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)

        async with site.context():
            for session in (db.sync.session(), db.aio.session().sync_session):
                assert isinstance(session, MySession)
                assert session.expire_on_commit
                assert not session.autoflush

    async def test_class_with_an_init_of_its_own_is_given_db(
        self, framework: str, backend: Any, make_site: Any
    ) -> None:
        class MySession(Session):
            def __init__(self, db: Any, **options: Any) -> None:
                super().__init__(db, **options)
                self.given = db

        db = fresh_db(session_options={"class_": MySession})
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)

        async with site.context():
            for session in (
                db.sync.session(),
                db.aio.session().sync_session,
                db.sync.sessionmaker(autoflush=False),
                db.aio.sessionmaker(autoflush=False).sync_session,
            ):
                assert session.given is db
                assert session.get_bind().dialect.name == "sqlite"

    async def test_class_with_another_base_after_ours(
        self, framework: str, backend: Any, make_site: Any
    ) -> None:
        done = []

        class Base(orm.Session):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                done.append("init")

            def execute(self, *args: Any, **options: Any) -> Any:
                done.append("execute")
                return super().execute(*args, **options)

        class MySession(Session, Base):
            pass

        db = fresh_db(session_options={"class_": MySession})
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            await resolve(db.session.execute(text("SELECT 1")))
        assert done == ["init", "execute"]

    async def test_init_of_its_own_is_given_the_app(
        self, framework: str, backend: Any, make_site: Any
    ) -> None:
        class MySession(Session):
            def __init__(self, db: Any, *, app: Any = None, **options: Any) -> None:
                super().__init__(db, app=app, **options)
                self.given = app

        db = fresh_db(session_options={"class_": MySession})
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)
        assert db.sync.sessionmaker(app=site.app).given is site.app
        assert db.aio.sessionmaker(app=site.app).sync_session.given is site.app
        assert db.sync.sessionmaker().given is None

    async def test_class_of_another_db_may_be_used_again(self) -> None:
        first = fresh_db()
        second = fresh_db(session_options={"class_": first.sync.sessionmaker.class_})
        app = Flask("shop")
        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
        second.init_app(app)
        with app.app_context():
            assert second.sync.session.scalar(text("SELECT 7")) == 7

    async def test_methods_of_a_class_run_on_both_apis(
        self, framework: str, backend: Any, make_site: Any
    ) -> None:
        done = []

        class MySession(Session):
            def execute(self, *args: Any, **kwargs: Any) -> Any:
                done.append("execute")
                return super().execute(*args, **kwargs)

            def commit(self) -> None:
                done.append("commit")
                super().commit()

            def close(self) -> None:
                done.append("close")
                super().close()

        db = fresh_db(session_options={"class_": MySession})
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)

        async with site.context():
            await resolve(db.session.execute(text("SELECT 1")))
            await resolve(db.session.commit())
        async with site.context():
            db.session()  # and nothing else
        assert done == ["execute", "commit", "close", "close"]

    async def test_factories_of_an_app(
        self, framework: str, backend: Any, make_site: Any
    ) -> None:
        db = fresh_db()
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)
        make_site(framework, db, SQLALCHEMY_DATABASE_URI="sqlite:///other.db")
        for maker in (db.sync.sessionmaker, db.aio.sessionmaker):
            maker.configure(app=site.app, autoflush=False)
        sync, asynchronous = db.sync.sessionmaker(), db.aio.sessionmaker()
        for session in (sync, asynchronous.sync_session):
            assert str(session.get_bind().url.database) in backend.url
            assert not session.autoflush

    async def test_async_session_of_a_class_of_ones_own(
        self, backend: Any, make_site: Any
    ) -> None:
        class MySession(Session):
            pass

        class MyAsyncSession(AsyncSession):
            sync_session_class = MySession

        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            for session in (
                AsyncSession(db=site.db),
                AsyncSession(db=site.db, sync_session_class=MySession),
                MyAsyncSession(db=site.db),
            ):
                async with session:
                    assert await session.scalar(text("SELECT 7")) == 7
            assert isinstance(session.sync_session, MySession)

    async def test_bind_decides(
        self, framework: str, backend: Any, make_site: Any
    ) -> None:
        engine = create_engine("sqlite://")
        db = fresh_db(session_options={"bind": engine})
        User = define_user(db)
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            assert db.sync.session().get_bind(inspect(User)) is engine
            assert db.sync.sessionmaker().get_bind(inspect(User)) is engine
            # A sync engine is nothing that the async session could use.
            assert db.aio.session().get_bind(inspect(User)) is not engine

    async def test_scopefunc_takes_the_place_of_the_context(
        self, framework: str, backend: Any, make_site: Any
    ) -> None:
        db = fresh_db(session_options={"scopefunc": lambda: "one for all"})
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)

        async with site.context():
            outer = db.session()
            async with site.context():
                assert db.session() is outer
                await resolve(db.session.execute(text("SELECT 1")))
            assert not outer.in_transaction()

    async def test_scopefunc_ends_both_sessions_under_quart(
        self, backend: Any, make_site: Any
    ) -> None:
        db = fresh_db(session_options={"scopefunc": lambda: "one for all"})
        site = make_site("quart", db, SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            await db.session.execute(text("SELECT 1"))
            db.sync.session.execute(text("SELECT 1"))
            assert checked_out(site) == 2
        async with site.context():
            assert checked_out(site) == 0

    async def test_options_of_the_user_are_not_changed(self) -> None:
        options = {"scopefunc": lambda: 1}
        SQLAlchemy(session_options=options)
        assert list(options) == ["scopefunc"]


class TestTakenAtImportTime:
    """``session = db.session`` at the top of a module, before any app exists."""

    @pytest.mark.backends("sqlite")
    async def test_finds_the_session_when_used(
        self, framework: str, backend: Any, make_site: Any
    ) -> None:
        db = fresh_db()
        User = define_user(db)
        session = db.session

        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            await resolve(db.create_all())
            user = User()
            session.add(user)
            assert user in session
            assert list(session) == [user]
            await resolve(session.commit())
            assert session() is db.session()
            session.autoflush = False
            assert db.session().autoflush is False
            expected = async_scoped_session if site.is_async else orm.scoped_session
            assert isinstance(session, expected)

    def test_is_a_scoped_session_to_sqlalchemy(self) -> None:
        session = SQLAlchemy().session

        assert isinstance(session, orm.scoped_session)
        event.listen(session, "before_commit", lambda session: None)
        assert repr(session) == "<session of <SQLAlchemy>>"

    def test_outside_a_context_says_so(self) -> None:
        session = SQLAlchemy().session

        with pytest.raises(
            ContextError, match="Working outside of application context"
        ):
            session.execute(text("SELECT 1"))


async def test_with_both_contexts_the_running_framework_decides(make_site: Any) -> None:
    """A test may hold a Flask context while it calls a Quart client."""
    db = fresh_db()
    flask = make_site("flask", db, SQLALCHEMY_DATABASE_URI="sqlite:///app.db")
    quart_ = make_site("quart", db, SQLALCHEMY_DATABASE_URI="sqlite:///app.db")

    with flask.app.app_context():
        assert isinstance(db.session, orm.scoped_session)
        async with quart_.context():
            assert isinstance(db.session, async_scoped_session)
            in_thread = await asyncio.to_thread(lambda: db.session)
            assert isinstance(in_thread, orm.scoped_session)
        assert isinstance(db.session, orm.scoped_session)


@pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb", "sqlite")
class TestCancellation:
    async def test_cancelled_request_gives_its_connection_back(
        self, backend: Any, make_site: Any
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        running = asyncio.Event()

        async def work() -> None:
            async with site.context():
                await site.db.session.execute(text("SELECT 1"))
                running.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with site.context():
            assert checked_out(site) == 0

    async def test_cancelled_while_closing(self, backend: Any, make_site: Any) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)

        async def work() -> None:
            async with site.context():
                await site.db.session.execute(text("SELECT 1"))
                # The next await is in the close.
                asyncio.current_task().cancel()  # type: ignore[union-attr]

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(work())
        async with site.context():
            assert checked_out(site) == 0
            assert await site.db.session.scalar(text("SELECT 1")) == 1

    async def test_cancelled_again_and_again_while_closing(
        self, backend: Any, make_site: Any
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        loop = asyncio.get_running_loop()

        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            async with site.context():
                await site.db.session.execute(text("SELECT 1"))
                task.cancel()
                for turn in range(200):
                    loop.call_later(turn / 20_000, task.cancel)

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(work())
        async with site.context():
            assert checked_out(site) == 0
            assert await site.db.session.scalar(text("SELECT 1")) == 1

    async def test_timeout_is_told_as_one(self, backend: Any, make_site: Any) -> None:
        """The count of cancellations, which ``asyncio.timeout`` reads, stays right."""
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as timeout:
                async with site.context():
                    await site.db.session.execute(text("SELECT 1"))
                    timeout.reschedule(0)
                await asyncio.sleep(1)
        async with site.context():
            assert checked_out(site) == 0

    async def test_blocking_session_is_closed_too(
        self, backend: Any, make_site: Any
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        sessions = []

        async def work() -> None:
            async with site.context():
                site.db.sync.session.execute(text("SELECT 1"))
                await site.db.session.execute(text("SELECT 1"))
                sessions.append(site.db.sync.session())
                asyncio.current_task().cancel()  # type: ignore[union-attr]

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(work())
        assert not sessions[0].in_transaction()
        async with site.context():
            assert checked_out(site) == 0


@pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
class TestConcurrency:
    async def test_second_task_is_refused_and_the_first_goes_on(
        self, backend: Any, make_site: Any
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        User = define_user_with_length(site.db)
        async with site.context():
            await site.db.create_all()
            session = site.db.session
            uses = [
                lambda: session.execute(select(User)),
                lambda: session.scalars(select(User)),
                lambda: session.get(User, 1),
                lambda: session.commit(),
                lambda: session.flush(),
                lambda: session.rollback(),
                lambda: site.db.get_or_404(User, 1),
                lambda: site.db.paginate(select(User)),
            ]
            for use in uses:
                first = asyncio.create_task(
                    session.scalar(text("SELECT 7")), name="the first"
                )
                await asyncio.sleep(0)
                with pytest.raises(ConcurrentUseError) as caught:
                    await use()
                assert await first == 7
            assert str(caught.value).startswith(
                "This AsyncSession is in use by another task, 'the first', and serves"
                " one at a time. Give each task a session of its own: 'async with"
                " db.aio.sessionmaker() as session'."
            )
            session.add(User())
            await session.commit()
            assert (await site.db.get_or_404(User, 1)).name == "ada"

    async def test_transaction_objects(self, backend: Any, make_site: Any) -> None:
        """Those of ``begin`` and ``begin_nested``, which write to the session too."""
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            session = site.db.session()

            async def occupied(use: Any) -> None:
                first = asyncio.create_task(session.scalar(text("SELECT 7")))
                await asyncio.sleep(0)
                with pytest.raises(ConcurrentUseError):
                    await use()
                assert await first == 7

            async with session.begin() as transaction:
                await occupied(session.begin_nested)
                savepoint = await session.begin_nested()
                await occupied(savepoint.commit)
                await occupied(savepoint.rollback)
                await savepoint.commit()
                await occupied(transaction.commit)
            assert not session.in_transaction()

            async def leave() -> None:
                async with session.begin():
                    first = asyncio.create_task(session.scalar(text("SELECT 7")))
                    await asyncio.sleep(0)
                    firsts.append(first)

            firsts: list[asyncio.Task[Any]] = []
            with pytest.raises(ConcurrentUseError):
                await leave()
            assert await firsts[0] == 7

    async def test_stream_that_is_not_at_its_end(
        self, backend: Any, make_site: Any
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        User = define_user_with_length(site.db)
        async with site.context():
            await site.db.create_all()
            session = site.db.session
            session.add_all([User() for _ in range(5)])
            await session.commit()
            statement = select(User.id).execution_options(yield_per=1)

            async def other() -> Any:
                return await session.scalar(text("SELECT 7"))

            seen = []
            async for id_ in await session.stream_scalars(statement):
                seen.append(id_)
                with pytest.raises(ConcurrentUseError):
                    await asyncio.create_task(other())
            assert len(seen) == 5
            assert await asyncio.create_task(other()) == 7
            result = await session.stream(statement)
            assert await result.first() is not None
            assert await asyncio.create_task(other()) == 7

    async def test_gathered_tasks(self, backend: Any, make_site: Any) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            found = await asyncio.gather(
                *(site.db.session.scalar(text("SELECT 7")) for _ in range(5)),
                return_exceptions=True,
            )
        assert found[0] == 7
        assert {type(each) for each in found[1:]} == {ConcurrentUseError}

    async def test_awaited_attributes(self, backend: Any, make_site: Any) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        User = define_user_with_length(site.db)
        async with site.context():
            await site.db.create_all()
            user = User()
            site.db.session.add(user)
            await site.db.session.commit()
            site.db.session.expire(user)
            first = asyncio.create_task(site.db.session.scalar(text("SELECT 7")))
            await asyncio.sleep(0)
            with pytest.raises(ConcurrentUseError):
                await user.awaitable_attrs.name
            assert await first == 7

            async def load() -> Any:
                return await user.awaitable_attrs.name

            loading = asyncio.create_task(load())
            await asyncio.sleep(0)
            with pytest.raises(ConcurrentUseError):
                await site.db.session.scalar(text("SELECT 7"))
            assert await loading == "ada"
            assert await site.db.session.scalar(text("SELECT 7")) == 7

    async def test_close_waits_for_the_task_that_uses_it(
        self, backend: Any, make_site: Any
    ) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            session = site.db.aio.sessionmaker()
            first = asyncio.create_task(session.scalar(text("SELECT 7")))
            await asyncio.sleep(0)
            await session.close()
            assert await first == 7
            assert not session.in_transaction()
            assert checked_out(site) == 0
            # It can be used anew, as any session that was closed.
            assert await session.scalar(text("SELECT 8")) == 8
            await session.close()

    async def test_sessions_of_their_own(self, backend: Any, make_site: Any) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)

        async def work(number: int) -> int:
            async with site.db.aio.sessionmaker() as session:
                return int(await session.scalar(text(f"SELECT {number}")) or 0)

        async with site.context():
            found = await asyncio.gather(*(work(number) for number in range(50)))
        assert found == list(range(50))

    async def test_one_task_after_another(self, backend: Any, make_site: Any) -> None:
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            for number in range(3):
                task = asyncio.create_task(
                    site.db.session.scalar(text(f"SELECT {number}"))
                )
                assert await task == number
            task = asyncio.create_task(site.db.session.scalar(text("SELECT 9")))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await site.db.session.rollback()
            assert await site.db.session.scalar(text("SELECT 9")) == 9
