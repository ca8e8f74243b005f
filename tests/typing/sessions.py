"""Sessions of one's own, session classes, events, signals and recorded queries."""

from __future__ import annotations

from typing import Any, assert_type

import sqlalchemy as sa
from flask import Flask
from models import User
from sqlalchemy import event, orm, select
from sqlalchemy.ext.asyncio import AsyncConnection, async_sessionmaker

from dualchemy import (
    Session,
    SQLAlchemy,
    get_recorded_queries,
    models_committed,
)
from dualchemy.async_sessions import AsyncSession
from dualchemy.recording import QueryInfo


class ShopSession(Session):
    """A session of the project's own."""


db = SQLAlchemy(
    session_options={"class_": ShopSession, "autoflush": False},
    engine_options={"pool_size": 5, "async": {"pool_size": 20}},
)

assert_type(db.sync.sessionmaker, orm.sessionmaker[Session])
assert_type(db.aio.sessionmaker, async_sessionmaker[AsyncSession])


def sync_work(connection: sa.Connection) -> None:
    with db.sync.sessionmaker() as session:
        assert_type(session.scalars(select(User)).one(), User)
    with db.sync.sessionmaker.begin() as session:
        session.add(User(name="ada"))
    with db.sync.sessionmaker(bind=connection) as session:
        assert_type(session.get(User, 1), User | None)


async def async_work(connection: AsyncConnection) -> None:
    async with db.aio.sessionmaker() as session:
        assert_type((await session.scalars(select(User))).one(), User)
        assert_type(await session.run_sync(count), int)
    async with db.aio.sessionmaker.begin() as session:
        session.add(User(name="ada"))
    async with db.aio.sessionmaker(bind=connection) as session:
        user = await session.get_one(User, 1)
        assert_type(user, User)
        await user.awaitable_attrs.posts


def count(session: orm.Session) -> int:
    return session.scalar(select(sa.func.count(User.id))) or 0


@event.listens_for(db.sync.session, "before_commit")
def check(session: orm.Session) -> None:
    assert session.new


@models_committed.connect
async def hear(sender: Flask, changes: list[tuple[Any, str]]) -> None:
    sender.logger.info("%d changes", len(changes))


def slowest() -> QueryInfo:
    queries = get_recorded_queries()
    assert_type(queries, list[QueryInfo])
    return max(queries, key=lambda query: query.duration)


assert_type(slowest().statement, str | None)
assert_type(slowest().location, str)
