"""Over real servers, in the shell, and with applications of both frameworks at once."""

from __future__ import annotations

import asyncio
import threading
from asyncio.base_events import BaseEventLoop
from typing import Any

import pytest
from sqlalchemy import String, func, select, text
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site, fresh_db, resolve, serve
from support.databases import Backend


@pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
async def test_requests_over_a_real_server(
    framework: str, backend: Backend, make_site: Any
) -> None:
    site: Site = make_site(framework, SQLALCHEMY_DATABASE_URI=backend.url)
    db = site.db

    class Hit(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        path: Mapped[str] = mapped_column(String(20))

    @site.view("/hit", methods=["POST"])
    async def hit() -> str:
        db.session.add(Hit(path="/hit"))
        await resolve(db.session.commit())
        return "ok"

    @site.view("/error")
    async def error() -> str:
        db.session.add(Hit(path="/error"))
        await resolve(db.session.flush())
        raise ZeroDivisionError

    async with site.context():
        await resolve(db.create_all())
    site.app.config["PROPAGATE_EXCEPTIONS"] = False
    checked_out: set[int] = set()
    async with serve(site.app) as client:
        if site.is_async:
            site.app.logger.disabled = True
        responses = await asyncio.gather(
            *(client.post("/hit") for _ in range(20)),
            *(client.get("/error") for _ in range(5)),
        )
        assert [each.status_code for each in responses] == [200] * 20 + [500] * 5
        async with site.context():
            pool = db.engine.pool
            checked_out.add(pool.checkedout())
    async with site.context():
        assert (
            await resolve(db.session.scalar(select(func.count()).select_from(Hit)))
            == 20
        )
    assert checked_out == {0}


@pytest.mark.backends("sqlite", "postgresql", "mariadb")
async def test_one_db_serves_both_frameworks_at_once(
    backend: Backend, make_site: Any
) -> None:
    db = fresh_db()

    class User(db.Model):  # type: ignore[name-defined]
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20))

    flask = make_site("flask", db, SQLALCHEMY_DATABASE_URI=backend.url)
    quart = make_site("quart", db, SQLALCHEMY_DATABASE_URI=backend.url)

    @flask.app.post("/<name>")
    def create(name: str) -> str:
        db.session.add(User(name=name))
        db.session.commit()
        return name

    @quart.app.get("/<int:id>")
    async def show(id: int) -> str:
        return str((await db.get_or_404(User, id)).name)

    async with quart.context():
        await db.create_all()
    async with serve(flask.app) as sync_client, serve(quart.app) as async_client:
        for number, name in enumerate(["ada", "grace"], 1):
            assert (await sync_client.post(f"/{name}")).text == name
            assert (await async_client.get(f"/{number}")).text == name
        assert (await async_client.get("/3")).status_code == 404


@pytest.mark.backends("sqlite")
class TestShell:
    async def test_has_db_and_the_models(self, site: Site) -> None:
        class User(site.db.Model):
            id: Mapped[int] = mapped_column(primary_key=True)

        async with site.context():
            names = site.app.make_shell_context()
        assert names["db"] is site.db
        assert names["User"] is User

    async def test_can_be_left_alone(
        self, framework: str, backend: Backend, make_site: Any
    ) -> None:
        db = fresh_db(add_models_to_shell=False)
        site = make_site(framework, db, SQLALCHEMY_DATABASE_URI=backend.url)
        async with site.context():
            assert "db" not in site.app.make_shell_context()


@pytest.fixture
def detours(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each thread, event loop and call in an executor. One of the last is as dear as
    a request, and a loop as ten.
    """
    made: list[str] = []

    def note(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, noted)

    note(threading.Thread, "start")
    note(BaseEventLoop, "__init__")
    note(BaseEventLoop, "run_in_executor")
    return made


@pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")
@pytest.mark.parametrize("work", ["nothing", "session", "statement"])
async def test_request_makes_no_detour(
    site: Site, detours: list[str], work: str
) -> None:
    @site.view("/")
    async def view() -> str:
        if work == "session":
            site.db.session.add_all([])
        if work == "statement":
            assert await resolve(site.db.session.scalar(text("SELECT 1"))) == 1
        return "done"

    assert await site.get("/") == (200, "done")  # and connects
    detours.clear()
    assert await site.get("/") == (200, "done")
    assert detours == []
    assert await asyncio.to_thread(lambda: 1) == 1
    assert detours == ["run_in_executor", "start"]
