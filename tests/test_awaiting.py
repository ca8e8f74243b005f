"""A helper that was not awaited says so; otherwise it is a coroutine like any other."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site
from werkzeug.exceptions import NotFound


@pytest.fixture
async def quart_site(make_site: Any) -> Any:
    site: Any = make_site("quart", SQLALCHEMY_DATABASE_URI="sqlite:///app.db")

    class User(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    site.User = User
    async with site.context():
        await site.db.create_all()
        site.db.session.add(User())
        await site.db.session.commit()
        yield site


async def test_names_the_helper_and_the_remedy(quart_site: Any) -> None:
    db, User = quart_site.db, quart_site.User
    call = db.get_or_404(User, 1)
    with pytest.raises(AttributeError) as caught:
        _ = call.name
    assert str(caught.value) == (
        "'db.get_or_404(...)' was not awaited: under Quart and on 'db.aio', write 'await"
        " db.get_or_404(...)' before reading 'name' of it."
    )
    page = db.paginate(select(User))
    for misuse in (iter, len, lambda call: call[0]):
        with pytest.raises(
            TypeError, match=r"'db\.paginate\(\.\.\.\)' was not awaited"
        ):
            misuse(page)
    following = (await page).next()
    with pytest.raises(AttributeError, match=r"page\.next"):
        _ = following.items
    # To look is not to touch: each can still be awaited.
    assert not hasattr(following, "_asyncio_future_blocking")
    assert (await following).items == []
    assert (await call).id == 1


async def test_left_alone_is_pythons_warning(quart_site: Any) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        quart_site.db.create_all()
        gc.collect()
    assert [str(each.message) for each in found] == [
        "coroutine 'db.create_all' was never awaited"
    ]


async def test_is_a_coroutine(quart_site: Any) -> None:
    db, User = quart_site.db, quart_site.User
    call = db.get_or_404(User, 1)
    assert asyncio.iscoroutine(call)
    assert inspect.isawaitable(call)
    assert bool(call)
    assert repr(call) == "<coroutine of db.get_or_404>"
    assert (await asyncio.create_task(call)).id == 1
    assert (await asyncio.wait_for(db.get_or_404(User, 1), 5)).id == 1
    task = asyncio.create_task(db.get_or_404(User, 2))
    with pytest.raises(NotFound):
        await task
    asyncio.get_running_loop().set_debug(True)
    (found,) = await asyncio.gather(db.get_or_404(User, 1))
    assert found.id == 1


async def test_can_be_cancelled_and_closed(quart_site: Any) -> None:
    db, User = quart_site.db, quart_site.User
    task = asyncio.create_task(db.get_or_404(User, 1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    db.get_or_404(User, 1).close()
    call = db.get_or_404(User, 1)
    with pytest.raises(ZeroDivisionError):
        call.throw(ZeroDivisionError())


class TestAwaitingUnderFlask:
    async def test_async_with_on_the_sync_session(self, make_site: Any) -> None:
        site: Site = make_site("flask", SQLALCHEMY_DATABASE_URI="sqlite://")
        with site.app.app_context():
            for session in (
                site.db.session,
                site.db.session(),
                site.db.sync.sessionmaker(),
            ):
                with pytest.raises(TypeError) as caught:
                    async with session:
                        pass
                assert str(caught.value) == (
                    "This is a sync session, which Flask's 'db.session' and 'db.sync'"
                    " give: use 'with', not 'async with', and no 'await'. For an async"
                    " session, use 'db.aio'."
                )

    async def test_awaiting_a_result_is_pythons_error(self, make_site: Any) -> None:
        """Results are plain objects, which must not look awaitable."""
        site: Site = make_site("flask", SQLALCHEMY_DATABASE_URI="sqlite://")
        with site.app.app_context():
            with pytest.raises(TypeError, match="can't be used in 'await' expression"):
                await site.db.session.execute(text("SELECT 1"))
