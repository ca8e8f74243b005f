"""Real applications of both frameworks behind one small interface, so that a test body
covers both APIs.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from flask import Flask
from hypercorn.asyncio import serve as serve_asgi
from hypercorn.config import Config as HypercornConfig
from quart import Quart
from werkzeug.serving import make_server

from dualchemy import SQLAlchemy

FRAMEWORKS = {"flask": Flask, "quart": Quart}


async def resolve(value: Any) -> Any:
    """Return a result of ``db``, which the async API has to be awaited for."""
    return await value if inspect.isawaitable(value) else value


@dataclass
class Site:
    """An application with ``db``."""

    app: Any
    db: Any

    @property
    def is_async(self) -> bool:
        return isinstance(self.app, Quart)

    @property
    def api(self) -> Any:
        """The API that ``db`` forwards to in this app."""
        return self.db.aio if self.is_async else self.db.sync

    @asynccontextmanager
    async def context(self) -> AsyncIterator[None]:
        """An app context."""
        if self.is_async:
            async with self.app.app_context():
                yield
        else:
            with self.app.app_context():
                yield

    @asynccontextmanager
    async def request(self, path: str = "/") -> AsyncIterator[None]:
        """A request context."""
        if self.is_async:
            async with self.app.test_request_context(path):
                yield
        else:
            with self.app.test_request_context(path):
                yield

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """A session of the app's API that the caller closes."""
        session = self.api.sessionmaker()
        try:
            yield session
        finally:
            await resolve(session.close())

    def view(self, path: str, **options: Any) -> Any:
        """Add a view, written as a coroutine function, for either framework."""

        def register(function: Any) -> Any:
            if self.is_async:
                return self.app.route(path, **options)(function)

            def run() -> Any:
                # Nothing in the view waits: Flask's API is sync.
                try:
                    function().send(None)
                except StopIteration as stop:
                    return stop.value
                raise AssertionError("the view awaited something under Flask")

            self.app.route(path, endpoint=function.__name__, **options)(run)
            return function

        return register

    async def get(self, path: str) -> tuple[int, str]:
        """Send a request with the framework's test client."""
        if self.is_async:
            response = await self.app.test_client().get(path)
            return response.status_code, (await response.get_data()).decode()
        response = self.app.test_client().get(path)
        return response.status_code, response.get_data(as_text=True)


class Sites:
    """The apps of one test, and the end of their connections."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Site] = []

    def make(self, framework: str, db: Any = None, **config: Any) -> Site:
        app = FRAMEWORKS[framework](
            "site", instance_path=str(self._folder / "instance")
        )
        app.config.update(TESTING=True, SECRET_KEY="test", **config)
        db = fresh_db() if db is None else db
        db.init_app(app)
        self._made.append(Site(app, db))
        return self._made[-1]

    async def dispose(self) -> None:
        for site in self._made:
            await self._dispose(site)

    def dispose_sync(self) -> None:
        for site in self._made:
            if site.is_async:
                asyncio.run(self._dispose(site))
            else:
                with site.app.app_context():
                    site.db.sync.dispose()

    async def _dispose(self, site: Site) -> None:
        async with site.context():
            site.db.sync.dispose()
            await site.db.aio.dispose()


@asynccontextmanager
async def serve(app: Any, **config: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an app on a port of this machine, and yield a client of it.

    :param config: Of the server, if the app is Quart's.
    """
    server = _serve_quart if isinstance(app, Quart) else _serve_flask
    async with (
        server(app, **config) as base_url,
        httpx.AsyncClient(base_url=base_url, timeout=30, trust_env=False) as client,
    ):
        yield client


@asynccontextmanager
async def _serve_quart(app: Quart, **options: Any) -> AsyncIterator[str]:
    config = HypercornConfig.from_mapping(options)
    config.bind = ["127.0.0.1:0"]
    config.errorlog = logging.getLogger("hypercorn.error")
    sockets = config.create_sockets()
    port = sockets.insecure_sockets[0].getsockname()[1]
    config.create_sockets = lambda: sockets  # type: ignore[method-assign]
    stop = asyncio.Event()
    task = asyncio.create_task(serve_asgi(app, config, shutdown_trigger=stop.wait))
    try:
        await _until_it_answers(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        await task


async def _until_it_answers(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                await writer.wait_closed()
                return


@asynccontextmanager
async def _serve_flask(app: Flask) -> AsyncIterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        await asyncio.to_thread(thread.join)
        server.server_close()


def fresh_db(**arguments: Any) -> SQLAlchemy:
    """A ``db`` with a base of its own."""
    from dualchemy import Model

    class Base(Model):
        pass

    return SQLAlchemy(model_class=Base, **arguments)
