"""A request is cancelled at each of its awaits in turn. Nothing leaks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Generator
from typing import Any

import pytest
from sqlalchemy import String, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site
from support.databases import Backend


class CancelAt:
    """Awaits a coroutine, and cancels the task when it waits for the n-th time."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], at: int, times: int
    ) -> None:
        self._coroutine = coroutine
        self._at = range(at, at + times)
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        iterator = self._coroutine.__await__()
        error: BaseException | None = None
        while True:
            try:
                waiting_for = iterator.throw(error) if error else next(iterator)
            except StopIteration as stop:
                return stop.value
            self.waits += 1
            if self.waits in self._at:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            error = None
            try:
                yield waiting_for
            except BaseException as caught:  # noqa: BLE001 - passed on
                error = caught


async def settled(site: Site) -> int:
    """The number of connections in use, once what was begun has ended."""
    pool = site.db.aio.engine.pool
    for _ in range(100):
        if pool.checkedout() == 0:
            break
        await asyncio.sleep(0.01)
    return int(pool.checkedout())


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
async def test_cancelled_at_each_await(
    backend: Backend, make_site: Any, times: int, request: Any, caplog: Any
) -> None:
    site: Site = make_site(
        "quart",
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_ENGINE_OPTIONS={
            "pool_size": 2,
            "max_overflow": 0,
            "pool_timeout": 5,
        },
    )

    class Visit(site.db.Model):  # type: ignore[name-defined]
        id: Mapped[int] = mapped_column(primary_key=True)
        who: Mapped[str] = mapped_column(String(20))

    async def visit() -> str:
        async with site.context():
            await site.db.session.scalar(select(func.count()).select_from(Visit))
            site.db.session.add(Visit(who="ada"))
            await site.db.session.flush()
            await site.db.session.commit()
            return str((await site.db.session.scalars(select(Visit.who))).first())

    async with site.context():
        await site.db.create_all()
    at, finished = 0, False
    while not finished:
        at += 1
        async with site.context():
            await site.db.dispose()  # so that connecting is among the awaits
        driven = CancelAt(visit(), at, times)

        async def run(driven: CancelAt = driven) -> Any:
            return await driven

        task = asyncio.create_task(run())
        await asyncio.wait([task])
        finished = driven.waits < at
        assert task.cancelled() is not finished, f"at await {at}: {task!r}"
        async with site.context():
            assert await settled(site) == 0, f"leaked at await {at}"
            assert (
                await site.db.session.scalar(select(func.count(Visit.id))) is not None
            )
    assert at > 6
    gc.collect()
    assert "was destroyed but it is pending" not in caplog.text
    if backend.name.startswith("postgresql"):
        server = request.getfixturevalue("server")
        assert server.open_transactions(make_url(backend.url).database) == 0
