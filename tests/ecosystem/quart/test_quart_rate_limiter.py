"""Quart-Rate-Limiter: refused requests open no session."""

from __future__ import annotations

from datetime import timedelta

import pytest
from quart_rate_limiter import RateLimiter, rate_limit
from sqlalchemy import func, select
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site

pytestmark = pytest.mark.backends("sqlite", "postgresql")


async def test_limit(site: Site) -> None:
    app, db = site.app, site.db
    RateLimiter(app)

    class Visit(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    @app.post("/visits")
    @rate_limit(2, timedelta(days=1))
    async def visit() -> dict[str, int]:
        db.session.add(Visit())
        await db.session.commit()
        count = select(func.count()).select_from(Visit)
        return {"visits": await db.session.scalar(count)}

    async with site.context():
        await db.create_all()
    async with app.test_app() as running:
        client = running.test_client()
        for number in 1, 2:
            response = await client.post("/visits")
            assert await response.json == {"visits": number}
        refused = await client.post("/visits")
        assert refused.status_code == 429
        assert refused.headers["RateLimit-Remaining"] == "0"
    async with site.context():
        assert len((await db.session.scalars(select(Visit))).all()) == 2
