"""A code base that serves Quart and Flask with one ``db`` and one set of models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import assert_type

import flask
import quart
import sqlalchemy as sa
from models import Base, User
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

import dualchemy.flask
import dualchemy.quart
from dualchemy.async_sessions import AsyncScopedSession
from dualchemy.sessions import ScopedSession

# One object. Each half of the code imports it under the type of its framework.
db = dualchemy.SQLAlchemy(model_class=Base)
flask_db = dualchemy.flask.SQLAlchemy()
quart_db = dualchemy.quart.SQLAlchemy()

assert_type(db.session, AsyncScopedSession)
assert_type(quart_db.session, AsyncScopedSession)
assert_type(flask_db.session, ScopedSession)

for each in (db, flask_db, quart_db):
    assert_type(each.sync.session, ScopedSession)
    assert_type(each.aio.session, AsyncScopedSession)
    assert_type(each.sync.engines, Mapping[str | None, sa.Engine])
    assert_type(each.aio.engines, Mapping[str | None, AsyncEngine])
    assert_type(each.metadatas[None], sa.MetaData)

flask_app = flask.Flask("flask")
quart_app = quart.Quart("quart")
db.init_app(flask_app)
db.init_app(quart_app)


@flask_app.get("/users/<int:id>")
def in_flask(id: int) -> str:
    return db.sync.get_or_404(User, id).name


@flask_app.get("/async/<int:id>")
async def async_in_flask(id: int) -> str:
    return (await db.aio.get_or_404(User, id)).name


@quart_app.get("/users/<int:id>")
async def in_quart(id: int) -> str:
    user = await db.get_or_404(User, id)
    assert_type(user, User)
    assert_type(user.posts[0].author, User)
    return user.name


@quart_app.get("/sync/<int:id>")
def sync_in_quart(id: int) -> str:
    return db.sync.one_or_404(select(User).where(User.id == id)).name


@quart_app.get("/both")
async def both_at_once() -> list[str]:
    async def name_of(id: int) -> str | None:
        async with db.aio.sessionmaker() as session:
            return (
                await session.scalars(select(User.name).where(User.id == id))
            ).first()

    names = await asyncio.gather(name_of(1), name_of(2))
    return [name or "" for name in names]


@flask_app.cli.command("init")
def init() -> None:
    db.sync.create_all()
    db.sync.create_all("reports")
    db.sync.drop_all(["reports", None])


@quart_app.before_serving
async def start() -> None:
    async with quart_app.app_context():
        await db.create_all(bind_key=None)
        await db.dispose()
