"""One server of a race, or the table that all use.

``python -m benchmarks.speed.serving FRAMEWORK CONTENDER URL FD`` serves on an inherited
socket; ``... prepare URL`` makes a table ``item`` anew.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import sqlalchemy as sa

from . import contenders
from .racing import DRIVER
from .views import add_flask_views, add_quart_views
from .work import fill

THREADS = 200
POOL = {"pool_size": 20, "max_overflow": 0}
SLEEP = "SELECT pg_sleep(0.01)"


def plain(url: str) -> str:
    return url.replace("+psycopg", "").replace("+asyncpg", "")


def flask_app(contender: str, url: str) -> Any:
    from flask import Flask

    app = Flask("benchmark")
    if contender == DRIVER:
        from psycopg_pool import ConnectionPool

        pool = ConnectionPool(plain(url), min_size=20, max_size=20)

        @app.get("/ping")
        def ping() -> Any:
            return {"pong": True}

        @app.get("/items/<int:id>")
        def by_key(id: int) -> Any:
            with pool.connection() as connection:
                query = "SELECT id, name, quantity FROM item WHERE id = %s"
                row = connection.execute(query, (id,)).fetchone()
            return dict(zip(("id", "name", "quantity"), row, strict=True))

        @app.get("/items")
        def list_20() -> Any:
            with pool.connection() as connection:
                query = "SELECT id, name, quantity FROM item ORDER BY id LIMIT 20"
                rows = connection.execute(query).fetchall()
            return [
                dict(zip(("id", "name", "quantity"), row, strict=True)) for row in rows
            ]

        @app.post("/items")
        def insert() -> Any:
            with pool.connection() as connection:
                connection.execute(
                    "INSERT INTO item (name, quantity) VALUES (%s, %s)", ("new", 1)
                )
            return {"created": True}

        @app.get("/slow")
        def slow() -> Any:
            with pool.connection() as connection:
                connection.execute(SLEEP)
            return {"slept": True}

        return app
    config = {"SQLALCHEMY_ENGINE_OPTIONS": POOL}
    peer = contenders.FLASK[contender](app, url, config)
    add_flask_views(app, peer)

    @app.get("/slow")
    def slow_query() -> Any:
        peer.db.session.execute(sa.text(SLEEP))
        return {"slept": True}

    return app


def quart_app(contender: str, url: str) -> Any:
    from quart import Quart

    app = Quart("benchmark")
    if contender == DRIVER:
        import asyncpg

        state: dict[str, Any] = {}

        @app.before_serving
        async def connect() -> None:
            dsn = plain(url)
            state["pool"] = await asyncpg.create_pool(dsn, min_size=20, max_size=20)

        @app.get("/ping")
        async def ping() -> Any:
            return {"pong": True}

        @app.get("/items/<int:id>")
        async def by_key(id: int) -> Any:
            query = "SELECT id, name, quantity FROM item WHERE id = $1"
            return dict(await state["pool"].fetchrow(query, id))

        @app.get("/items")
        async def list_20() -> Any:
            query = "SELECT id, name, quantity FROM item ORDER BY id LIMIT 20"
            return [dict(row) for row in await state["pool"].fetch(query)]

        @app.post("/items")
        async def insert() -> Any:
            query = "INSERT INTO item (name, quantity) VALUES ($1, $2)"
            await state["pool"].execute(query, "new", 1)
            return {"created": True}

        @app.get("/slow")
        async def slow() -> Any:
            await state["pool"].fetch(SLEEP)
            return {"slept": True}

        return app
    config = {"SQLALCHEMY_ENGINE_OPTIONS": POOL}
    peer = contenders.QUART[contender](app, url, config)
    add_quart_views(app, peer)

    @app.get("/slow")
    async def slow_query() -> Any:
        if peer.make_session is not None:
            async with peer.make_session() as session:
                await session.execute(sa.text(SLEEP))
        else:
            await peer.db.session.execute(sa.text(SLEEP))
        return {"slept": True}

    return app


def main() -> None:
    if sys.argv[1] == "prepare":
        fill(sys.argv[2])
        return
    framework, contender, url, fd = sys.argv[1:]
    if framework == "flask":
        import waitress

        listener = socket.socket(fileno=int(fd))
        waitress.serve(
            flask_app(contender, url),
            sockets=[listener],
            threads=THREADS,
            connection_limit=2 * THREADS,
            _quiet=True,
        )
        return
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{fd}"]
    config.errorlog = None
    asyncio.run(serve(quart_app(contender, url), config))


if __name__ == "__main__":
    main()
