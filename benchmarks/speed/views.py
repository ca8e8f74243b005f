"""What do the apps do? The same in each, in the way that the contender wants it written.

The rows of the table :class:`Item`, and the statements, are the same everywhere.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from .contenders import Peer

ROWS = 100
LIGHT = sa.text("SELECT 1")


def item_of(Model: Any) -> Any:
    """Return the model that all views use."""

    class Item(Model):
        __tablename__ = "item"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str] = orm.mapped_column(sa.String(50))
        quantity: orm.Mapped[int]

    return Item


def shown(item: Any) -> dict[str, Any]:
    return {"id": item.id, "name": item.name, "quantity": item.quantity}


def add_flask_views(app: Any, peer: Peer) -> None:
    @app.get("/ping")
    def ping() -> Any:
        return {"pong": True}

    if peer.Model is None:
        return
    Item = item_of(peer.Model)
    first_20 = sa.select(Item).order_by(Item.id).limit(20)
    db, make_session = peer.db, peer.make_session

    if make_session is None:

        @app.get("/items/<int:id>")
        def by_key(id: int) -> Any:
            return shown(db.session.get(Item, id))

        @app.get("/items")
        def list_20() -> Any:
            return [shown(item) for item in db.session.scalars(first_20)]

        @app.post("/items")
        def insert() -> Any:
            session = db.session
            session.add(Item(name="new", quantity=1))
            session.commit()
            return {"created": True}

        return

    @app.get("/items/<int:id>")
    def by_key_with(id: int) -> Any:
        with make_session() as session:
            return shown(session.get(Item, id))

    @app.get("/items")
    def list_20_with() -> Any:
        with make_session() as session:
            return [shown(item) for item in session.scalars(first_20)]

    @app.post("/items")
    def insert_with() -> Any:
        with make_session() as session:
            session.add(Item(name="new", quantity=1))
            session.commit()
        return {"created": True}


def add_quart_views(app: Any, peer: Peer) -> None:
    @app.get("/ping")
    async def ping() -> Any:
        return {"pong": True}

    if peer.Model is None:
        return
    Item = item_of(peer.Model)
    first_20 = sa.select(Item).order_by(Item.id).limit(20)
    db, make_session = peer.db, peer.make_session

    if make_session is None:

        @app.get("/items/<int:id>")
        async def by_key(id: int) -> Any:
            return shown(await db.session.get(Item, id))

        @app.get("/items")
        async def list_20() -> Any:
            return [shown(item) for item in await db.session.scalars(first_20)]

        @app.post("/items")
        async def insert() -> Any:
            session = db.session
            session.add(Item(name="new", quantity=1))
            await session.commit()
            return {"created": True}

        return

    @app.get("/items/<int:id>")
    async def by_key_with(id: int) -> Any:
        async with make_session() as session:
            return shown(await session.get(Item, id))

    @app.get("/items")
    async def list_20_with() -> Any:
        async with make_session() as session:
            return [shown(item) for item in await session.scalars(first_20)]

    @app.post("/items")
    async def insert_with() -> Any:
        async with make_session() as session:
            session.add(Item(name="new", quantity=1))
            await session.commit()
        return {"created": True}
