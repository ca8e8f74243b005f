"""A table, and two ways to look at it: in an isolation and from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from dualchemy.urls import for_api

from .apps import Site, resolve
from .databases import Backend


class Outsider:
    """A connection of one's own, past Dualchemy."""

    def __init__(self, backend: Backend) -> None:
        self.is_there = backend.name != "sqlite-memory"
        if self.is_there:
            url = sa.make_url(backend.url)
            self.engine = sa.create_engine(for_api(url, "sync", "test"))

    def names(self) -> list[str]:
        if not self.is_there:
            return []
        with self.engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT name FROM user_ ORDER BY name"))
            return list(rows.scalars())

    def close(self) -> None:
        if self.is_there:
            self.engine.dispose()


class Case:
    def __init__(self, site: Site, backend: Backend) -> None:
        self.site = site
        self.db = site.db
        self.backend = backend
        self.outsider = Outsider(backend)

        class User(site.db.Model):
            __tablename__ = "user_"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str] = mapped_column(sa.String(40), unique=True)

        self.User = User

    @asynccontextmanager
    async def isolation(self, **options: Any) -> AsyncIterator[None]:
        if self.site.is_async:
            async with self.db.aio.isolation(self.site.app, **options):
                yield
        else:
            with self.db.sync.isolation(self.site.app, **options):
                yield

    async def add(self, *names: str) -> None:
        """Add users in a context and a session of their own."""
        async with self.site.context():
            self.db.session.add_all(self.User(name=name) for name in names)
            await resolve(self.db.session.commit())

    async def names(self) -> list[str]:
        async with self.site.context():
            select = sa.select(self.User.name).order_by(self.User.name)
            return list(await resolve(self.db.session.scalars(select)))
