"""The same models and the same ``db`` on each framework, API and database."""

from __future__ import annotations

from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site, resolve


async def test_create_read_update_delete(site: Site) -> None:
    db = site.db

    class User(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(40), unique=True)

    async with site.context():
        await resolve(db.create_all())
        db.session.add(User(name="ada"))
        await resolve(db.session.commit())

    async with site.context():
        user = (await resolve(db.session.scalars(select(User)))).one()
        assert user.name == "ada"
        user.name = "grace"
        await resolve(db.session.commit())

    async with site.context():
        user = await resolve(db.get_or_404(User, 1))
        assert user.name == "grace"
        await resolve(db.session.delete(user))
        await resolve(db.session.commit())

    async with site.context():
        assert await resolve(db.session.get(User, 1)) is None
