"""Who hears of the models that a commit changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site, resolve
from support.databases import Backend

from dualchemy import before_models_committed, models_committed


@pytest.fixture
def tracked(framework: str, backend: Backend, make_site: Any) -> Any:
    """A site that tracks modifications, with a model ``Todo``."""
    site: Any = make_site(
        framework,
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_TRACK_MODIFICATIONS=True,
    )

    class Todo(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(String(20), default="")

    site.Todo = Todo
    return site


@contextmanager
def heard(signal: Any, site: Site) -> Iterator[list[tuple[str, str]]]:
    """Collect the changes that a signal tells of, as (title, operation)."""
    changes: list[tuple[str, str]] = []

    def receive(sender: Any, changes: Any, into: Any = changes) -> None:
        into.extend((model.title, operation) for model, operation in changes)

    with signal.connected_to(receive, site.app):
        yield changes


@pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
@pytest.mark.parametrize("signal", [before_models_committed, models_committed])
async def test_insert_update_delete(tracked: Any, signal: Any) -> None:
    session = tracked.db.session
    async with tracked.context():
        await resolve(tracked.db.create_all())
        session = tracked.db.session
        with heard(signal, tracked) as changes:
            todo = tracked.Todo(title="a")
            session.add(todo)
            await resolve(session.commit())
            assert changes == [("a", "insert")]
            await resolve(session.refresh(todo))
            todo.title = "b"
            await resolve(session.flush())
            await resolve(session.commit())
            assert changes[1:] == [("b", "update")]
            await resolve(session.refresh(todo))
            await resolve(session.delete(todo))
            await resolve(session.commit())
            assert changes[2:] == [("b", "delete")]


@pytest.mark.backends("sqlite")
class TestChanges:
    async def test_rolled_back_are_not_told(self, tracked: Any) -> None:
        async with tracked.context():
            await resolve(tracked.db.create_all())
            session = tracked.db.session
            with heard(models_committed, tracked) as changes:
                session.add(tracked.Todo(title="a"))
                await resolve(session.flush())
                await resolve(session.rollback())
                await resolve(session.commit())
            assert changes == []

    async def test_of_a_rolled_back_savepoint_are_not_told(self, tracked: Any) -> None:
        async with tracked.context():
            await resolve(tracked.db.create_all())
            session = tracked.db.session
            with heard(models_committed, tracked) as changes:
                session.add(tracked.Todo(title="kept"))
                savepoint = await resolve(session.begin_nested())
                session.add(tracked.Todo(title="undone"))
                await resolve(session.flush())
                await resolve(savepoint.rollback())
                savepoint = await resolve(session.begin_nested())
                session.add(tracked.Todo(title="kept too"))
                await resolve(savepoint.commit())
                await resolve(session.commit())
            assert changes == [("kept", "insert"), ("kept too", "insert")]

    async def test_without_effect_are_not_told(self, tracked: Any) -> None:
        async with tracked.context():
            await resolve(tracked.db.create_all())
            session = tracked.db.session
            todo = tracked.Todo(title="a")
            session.add(todo)
            await resolve(session.commit())
            await resolve(session.refresh(todo))
            with heard(models_committed, tracked) as changes:
                todo.title = "b"
                todo.title = "a"
                await resolve(session.commit())
            assert changes == []


@pytest.mark.backends("sqlite")
class TestReceiver:
    async def test_before_commit_may_add_to_it(self, tracked: Any) -> None:
        async with tracked.context():
            await resolve(tracked.db.create_all())
            session = tracked.db.session()

            def add(sender: Any, changes: Any) -> None:
                session.add(tracked.Todo(title="log"))

            with before_models_committed.connected_to(add, tracked.app):
                session.add(tracked.Todo(title="a"))
                await resolve(session.commit())
            statement = select(tracked.Todo.title).order_by(tracked.Todo.id)
            titles = (await resolve(session.scalars(statement))).all()
            assert titles == ["a", "log"]

    async def test_exception_reaches_the_caller_of_commit(self, tracked: Any) -> None:
        def fail(sender: Any, changes: Any) -> None:
            raise ZeroDivisionError

        async with tracked.context():
            await resolve(tracked.db.create_all())
            session = tracked.db.session
            with before_models_committed.connected_to(fail, tracked.app):
                session.add(tracked.Todo(title="a"))
                with pytest.raises(ZeroDivisionError):
                    await resolve(session.commit())
            await resolve(session.rollback())
            assert (await resolve(session.scalars(select(tracked.Todo)))).all() == []

    async def test_after_commit_may_use_a_new_session(self, tracked: Any) -> None:
        if not tracked.is_async:
            found = []

            def count(sender: Any, changes: Any) -> None:
                with tracked.db.sync.sessionmaker() as session:
                    found.append(session.query(tracked.Todo).count())
        else:
            found = []

            async def count(sender: Any, changes: Any) -> None:  # type: ignore[misc]
                async with tracked.db.aio.sessionmaker() as session:
                    found.append(
                        len((await session.scalars(select(tracked.Todo))).all())
                    )

        async with tracked.context():
            await resolve(tracked.db.create_all())
            with models_committed.connected_to(count, tracked.app):
                tracked.db.session.add(tracked.Todo(title="a"))
                await resolve(tracked.db.session.commit())
        assert found == [1]

    async def test_coroutine_functions_are_awaited_in_order(
        self, make_site: Any
    ) -> None:
        site: Any = make_site(
            "quart",
            SQLALCHEMY_DATABASE_URI="sqlite://",
            SQLALCHEMY_TRACK_MODIFICATIONS=True,
        )

        class Todo(site.db.Model):
            id: Mapped[int] = mapped_column(primary_key=True)

        events: list[Any] = []

        async def receive(sender: Any, changes: Any) -> None:
            events.append("begin")
            await asyncio.sleep(0)
            events.append(asyncio.current_task())

        async with site.context():
            await site.db.create_all()
            with models_committed.connected_to(receive, site.app):
                site.db.session.add(Todo())
                await site.db.session.commit()
                events.append("committed")
        assert events == ["begin", asyncio.current_task(), "committed"]

    async def test_exception_of_a_coroutine_function_reaches_the_caller(
        self, make_site: Any
    ) -> None:
        site: Any = make_site(
            "quart",
            SQLALCHEMY_DATABASE_URI="sqlite://",
            SQLALCHEMY_TRACK_MODIFICATIONS=True,
        )

        class Todo(site.db.Model):
            id: Mapped[int] = mapped_column(primary_key=True)

        async def fail(sender: Any, changes: Any) -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

        async with site.context():
            await site.db.create_all()
            with before_models_committed.connected_to(fail, site.app):
                site.db.session.add(Todo())
                with pytest.raises(ZeroDivisionError):
                    await site.db.session.commit()
            await site.db.session.rollback()
            assert (await site.db.session.scalars(select(Todo))).all() == []

    def test_coroutine_function_under_flask(self, make_sync_site: Any) -> None:
        site: Any = make_sync_site(
            "flask",
            SQLALCHEMY_DATABASE_URI="sqlite://",
            SQLALCHEMY_TRACK_MODIFICATIONS=True,
        )

        class Todo(site.db.Model):
            id: Mapped[int] = mapped_column(primary_key=True)

        got: list[str] = []

        async def receive(sender: Any, changes: Any) -> None:
            got.extend(operation for _, operation in changes)

        with site.app.app_context():
            site.db.create_all()
            with models_committed.connected_to(receive, site.app):
                site.db.session.add(Todo())
                site.db.session.commit()
        assert got == ["insert"]

    async def test_coroutine_function_cannot_be_awaited_in_a_thread_of_quart(
        self, make_site: Any
    ) -> None:
        site: Any = make_site(
            "quart",
            SQLALCHEMY_DATABASE_URI="sqlite://",
            SQLALCHEMY_TRACK_MODIFICATIONS=True,
        )

        class Todo(site.db.Model):
            id: Mapped[int] = mapped_column(primary_key=True)

        async def receive(sender: Any, changes: Any) -> None: ...

        @site.app.get("/")
        def view() -> str:
            site.db.sync.create_all()
            site.db.sync.session.add(Todo())
            with pytest.raises(RuntimeError, match="has no event loop to await it"):
                site.db.sync.session.commit()
            return "seen"

        with models_committed.connected_to(receive, site.app):
            assert await site.get("/") == (200, "seen")


@pytest.mark.backends("sqlite")
async def test_nothing_is_told_without_the_config(site: Site) -> None:
    class Todo(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(default="a")

    async with site.context():
        await resolve(site.db.create_all())
        with heard(models_committed, site) as changes:
            site.db.session.add(Todo())
            await resolve(site.db.session.commit())
    assert changes == []


@pytest.mark.backends("sqlite")
@pytest.mark.parametrize("signal", [before_models_committed, models_committed])
async def test_session_of_an_app_needs_no_context(tracked: Any, signal: Any) -> None:
    async with tracked.context():
        await resolve(tracked.db.create_all())
    session = tracked.api.sessionmaker(app=tracked.app)
    with heard(signal, tracked) as changes:
        session.add(tracked.Todo(title="a"))
        await resolve(session.commit())
    assert changes == [("a", "insert")]
    session.add(tracked.Todo(title="b"))
    await resolve(session.commit())  # and nobody hears
    await resolve(session.close())
