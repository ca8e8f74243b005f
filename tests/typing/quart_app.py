"""A Quart application: the session is an ``AsyncSession``."""

from __future__ import annotations

from typing import Any, assert_type

import sqlalchemy as sa
from models import User, db
from quart import Quart
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, async_scoped_session

from dualchemy.async_sessions import AsyncSession
from dualchemy.quart import SQLAlchemy as QuartSQLAlchemy

app = Quart(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///app.db"
db.init_app(app)


@app.get("/users/<int:id>")
async def user(id: int) -> dict[str, str]:
    found = await db.get_or_404(User, id, description="No such user.")
    assert_type(found, User)
    return {"name": found.name}


@app.get("/users")
async def users() -> dict[str, object]:
    page = await db.paginate(select(User).order_by(User.name), per_page=5)
    assert_type(page.items, list[User])
    assert_type(page.total, int | None)
    following = await page.next()
    assert_type(following.items, list[User])
    by_cursor = await db.paginate_keyset(select(User), per_page=5, max_per_page=None)
    assert_type(by_cursor.items, list[User])
    assert_type([name async for name in db.pages(select(User.name))], list[list[str]])
    names = await db.paginate(select(User.name), count=1000)
    assert_type(names.items, list[str])
    return {"items": [each.name for each in page], "total": page.total}


@app.post("/users")
async def create() -> str:
    new = User(name="ada")
    db.session.add(new)
    await db.session.commit()
    assert_type(await db.session.get(User, new.id), User | None)
    assert_type((await db.session.scalars(select(User.name))).first(), str | None)
    assert_type(await db.one_or_404(select(User).where(User.id == 1)), User)
    assert_type(await db.first_or_404(select(User.name)), str)
    return new.name


async def script() -> None:
    async with app.app_context():
        await db.create_all()
        assert_type(db.engine, AsyncEngine)
        async with db.aio.sessionmaker() as session:
            assert_type(session, AsyncSession)
        async with db.aio.sessionmaker.begin() as session:
            session.add(User(name="grace"))
    assert_type(db.sync.engine, sa.Engine)


def takes_session(session: async_scoped_session[AsyncSession]) -> Any:
    return session.bind


takes_session(db.session)
takes_session(QuartSQLAlchemy(app).session)
