"""What is counted? Each row is a function that prepares its work and returns it: a
function that does the work so many times.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from . import contenders
from .contenders import Peer
from .rows import DUALCHEMY, FLOOR, FSA
from .views import LIGHT, ROWS, add_flask_views, add_quart_views, item_of

Run = Callable[[int], None]


def connect_receiver(contender: str) -> None:
    """Have somebody hear of commits, where the contender tells of them."""
    global receive  # blinker holds it weakly

    def receive(sender: object, changes: object) -> None:
        pass

    if contender == FSA:
        from flask_sqlalchemy.track_modifications import models_committed

        models_committed.connect(receive)
    elif contender == DUALCHEMY:
        from dualchemy import models_committed

        models_committed.connect(receive)


def scratch_folder() -> AbstractContextManager[str]:
    """Make a folder for SQLite files, in memory where the system can."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def scratch_database(folder: str) -> str:
    """Fill a SQLite file and return its URL."""
    url = f"sqlite:///{folder}/items.db"
    fill(url)
    return url


def fill(url: str) -> None:
    """Make the table of :func:`item_of` anew."""
    engine = sa.create_engine(url)
    Item = item_of(contenders.base())
    Item.metadata.drop_all(engine)
    Item.metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.add_all(Item(name=f"item {n}", quantity=n) for n in range(ROWS))
        session.commit()
    engine.dispose()


class OnFlask:
    """The rows of a contender on Flask."""

    def __init__(self, contender: str, url: str) -> None:
        self.contender = contender
        self.url = url

    def serve(self, config: Mapping[str, Any] | None = None) -> tuple[Any, Peer]:
        from flask import Flask

        app = Flask("benchmark")
        peer = contenders.FLASK[self.contender](app, self.url, config or {})
        add_flask_views(app, peer)
        return app, peer

    def context(self) -> Run:
        app, _ = self.serve()

        def run(times: int) -> None:
            for _ in range(times):
                with app.app_context():
                    pass

        return run

    def request(
        self, path: str, method: str = "GET", config: Mapping[str, Any] | None = None
    ) -> Run:
        from werkzeug.test import EnvironBuilder

        app, _ = self.serve(config)
        environ = EnvironBuilder(path, method=method).get_environ()
        answers: list[str] = []

        def start_response(status: str, headers: Any, error: Any = None) -> Any:
            answers.append(status)

        def run(times: int) -> None:
            answers.clear()
            for _ in range(times):
                with closing(app(dict(environ), start_response)) as body:
                    for _ in body:
                        pass
            assert answers == ["200 OK"] * times, answers

        return run

    def session(self) -> Run:
        app, peer = self.serve()
        db, make_session = peer.db, peer.make_session

        def run(times: int) -> None:
            for _ in range(times):
                with app.app_context():
                    db.session.autoflush  # noqa: B018

        def run_with(times: int) -> None:
            for _ in range(times):
                with app.app_context(), make_session() as session:
                    session.autoflush  # noqa: B018

        return run if make_session is None else run_with

    def light(self, config: Mapping[str, Any] | None = None) -> Run:
        app, peer = self.serve(config)
        db, make_session = peer.db, peer.make_session

        def run(times: int) -> None:
            for _ in range(times):
                with app.app_context():
                    db.session.scalar(LIGHT)

        def run_with(times: int) -> None:
            for _ in range(times):
                with app.app_context(), make_session() as session:
                    session.scalar(LIGHT)

        return run if make_session is None else run_with

    def request_with_receiver(self, *args: Any) -> Run:
        connect_receiver(self.contender)
        return self.request(*args)

    def routing(self, binds: int, what: str, number_of_models: int) -> Run:
        """Route a statement of each of many models, or make as many sessions."""
        app, peer = self.serve(
            {"SQLALCHEMY_BINDS": {f"bind{n}": self.url for n in range(1, binds)}}
        )
        Model = contenders.base() if self.contender == FLOOR else peer.Model

        def model(number: int) -> Any:
            key = number % binds
            return type(
                f"Model{number}",
                (Model,),
                {
                    "__tablename__": f"model{number}",
                    "__bind_key__": f"bind{key}" if key else None,
                    "id": orm.mapped_column(sa.Integer, primary_key=True),
                },
            )

        models = [model(number) for number in range(number_of_models)]
        arguments = [
            {"clause": sa.select(each.__table__)}
            if what == "core"
            else {"mapper": sa.inspect(each), "clause": sa.select(each)}
            for each in models
        ]
        make = self.make_session(peer)
        app.app_context().push()
        session = make()

        def run(times: int) -> None:
            for _ in range(times):
                for each in arguments:
                    session.get_bind(**each)

        def run_new(times: int) -> None:
            for _ in range(times * number_of_models):
                make()

        return run_new if what == "new" else run

    def make_session(self, peer: Peer) -> Callable[[], Any]:
        if self.contender == DUALCHEMY:
            return peer.db.sync.sessionmaker
        if self.contender == FLOOR:
            return peer.db.factory
        return peer.db.session.session_factory

    def page(self, number: int, per_page: int) -> Run:
        app, peer = self.serve()
        db = peer.db
        Item = next(iter(peer.Model.registry.mappers)).class_
        statement = sa.select(Item).order_by(Item.id)

        def run(times: int) -> None:
            for _ in range(times):
                with app.app_context():
                    db.paginate(statement, page=number, per_page=per_page)

        return run


class OnQuart:
    """The rows of a contender on Quart."""

    def __init__(self, contender: str, url: str) -> None:
        self.contender = contender
        self.url = url
        self.loop = asyncio.new_event_loop()

    def serve(self, config: Mapping[str, Any] | None = None) -> tuple[Any, Peer]:
        from quart import Quart

        app = Quart("benchmark")
        peer = contenders.QUART[self.contender](app, self.url, config or {})
        add_quart_views(app, peer)
        return app, peer

    def on_loop(self, run: Callable[[int], Awaitable[None]]) -> Run:
        return lambda times: self.loop.run_until_complete(run(times))

    def context(self) -> Run:
        app, _ = self.serve()

        async def run(times: int) -> None:
            for _ in range(times):
                async with app.app_context():
                    pass

        return self.on_loop(run)

    def request(
        self, path: str, method: str = "GET", config: Mapping[str, Any] | None = None
    ) -> Run:
        app, _ = self.serve(config)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 5000),
            "extensions": {},
        }
        answers: list[int] = []

        async def one() -> None:
            messages = [{"type": "http.request", "body": b"", "more_body": False}]
            answered = self.loop.create_future()

            async def receive() -> Any:
                if messages:
                    return messages.pop()
                await answered  # until when the client stays
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    answers.append(message["status"])
                elif not message.get("more_body"):
                    answered.set_result(None)

            await app(dict(scope), receive, send)

        async def run(times: int) -> None:
            answers.clear()
            for _ in range(times):
                await one()
            assert answers == [200] * times, answers

        return self.on_loop(run)

    def request_with_receiver(self, *args: Any) -> Run:
        connect_receiver(self.contender)
        return self.request(*args)

    def session(self) -> Run:
        app, peer = self.serve()
        db, make_session = peer.db, peer.make_session

        async def run(times: int) -> None:
            for _ in range(times):
                async with app.app_context():
                    db.session.autoflush  # noqa: B018

        async def run_with(times: int) -> None:
            for _ in range(times):
                async with app.app_context(), make_session() as session:
                    session.autoflush  # noqa: B018

        return self.on_loop(run if make_session is None else run_with)

    def light(self, config: Mapping[str, Any] | None = None) -> Run:
        app, peer = self.serve(config)
        db, make_session = peer.db, peer.make_session

        async def run(times: int) -> None:
            for _ in range(times):
                async with app.app_context():
                    await db.session.scalar(LIGHT)

        async def run_with(times: int) -> None:
            for _ in range(times):
                async with app.app_context(), make_session() as session:
                    await session.scalar(LIGHT)

        return self.on_loop(run if make_session is None else run_with)
