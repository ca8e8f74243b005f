"""Quart-Session: a session kept on a server, beside the database's."""

from __future__ import annotations

import fakeredis
import pytest
from quart import session
from quart_session import Session
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site

pytestmark = [
    pytest.mark.backends("sqlite", "postgresql"),
    pytest.mark.filterwarnings(
        "ignore:Call to deprecated setex:DeprecationWarning:quart_session"
    ),
]


async def test_cart(site: Site) -> None:
    app, db = site.app, site.db
    redis = fakeredis.FakeAsyncRedis(decode_responses=True)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis)
    Session(app)

    class Book(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]

    @app.post("/cart/<int:id>")
    async def put(id: int) -> str:
        book = await db.get_or_404(Book, id)
        session["cart"] = [*session.get("cart", []), book.id]
        return book.title

    @app.get("/cart")
    async def cart() -> list[str]:
        return [(await db.get_or_404(Book, id)).title for id in session["cart"]]

    async with site.context():
        await db.create_all()
        db.session.add_all([Book(title="Emma"), Book(title="Persuasion")])
        await db.session.commit()
    async with app.test_app() as running:
        client = running.test_client()
        for id in 2, 1:
            assert (await client.post(f"/cart/{id}")).status_code == 200
        assert (await client.post("/cart/3")).status_code == 404
        assert await (await client.get("/cart")).json == ["Persuasion", "Emma"]
        assert len(await redis.keys("session:*")) == 1
    await redis.aclose()
