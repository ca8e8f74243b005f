"""Who is compared?

Each contender is a function that sets up an app and returns a :class:`Peer`. It imports
what it needs itself, for not every environment has everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from .rows import ADVANCED, ALCHEMICAL, BARE, DUALCHEMY, FLOOR, FSA, LITE, QSA, WITH


@dataclass
class Peer:
    """What a contender gives to the views."""

    db: Any = None
    """``db.session`` is the session of the app context."""

    Model: Any = None

    make_session: Callable[[], Any] | None = None
    """What a view enters by ``with`` or ``async with``, where there is no such thing as
    the session of the context.
    """


Contender = Callable[[Any, str, Mapping[str, Any]], Peer]


def base() -> Any:
    class Base(orm.DeclarativeBase):
        pass

    return Base


class SessionOnG:
    """A session for each app context, as a careful engineer writes it by hand."""

    def __init__(self, g: Any, factory: Callable[[], Any]) -> None:
        self.g = g
        self.factory = factory

    @property
    def session(self) -> Any:
        if "session" not in self.g:
            self.g.session = self.factory()
        return self.g.session


def bare(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    return Peer()


def flask_floor(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    from flask import g

    @app.teardown_appcontext
    def close(error: BaseException | None) -> None:
        session = g.pop("session", None)
        if session is not None:
            session.close()

    factory = orm.sessionmaker(sa.create_engine(url, **options_in(config)))
    return Peer(SessionOnG(g, factory), base())


def flask_with(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    factory = orm.sessionmaker(sa.create_engine(url, **options_in(config)))
    return Peer(Model=base(), make_session=factory)


def flask_sqlalchemy(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    from flask_sqlalchemy import SQLAlchemy

    app.config.update(config, SQLALCHEMY_DATABASE_URI=url)
    db = SQLAlchemy(app)
    return Peer(db, db.Model)


def flask_sqlalchemy_lite(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    from flask_sqlalchemy_lite import SQLAlchemy

    engine = {"url": url, **options_in(config)}
    app.config["SQLALCHEMY_ENGINES"] = {"default": engine}
    return Peer(SQLAlchemy(app), base())


def advanced_alchemy(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    from advanced_alchemy.extensions import flask as aa

    alchemy = aa.AdvancedAlchemy(
        aa.SQLAlchemySyncConfig(
            connection_string=url,
            session_config=aa.SyncSessionConfig(),
            engine_config=aa.EngineConfig(**options_in(config)),
        ),
        app,
    )

    class AsDb:
        @property
        def session(self) -> Any:
            return alchemy.get_sync_session()

    return Peer(AsDb(), base())


def alchemical(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    from alchemical.flask import Alchemical

    app.config["ALCHEMICAL_DATABASE_URL"] = url
    return Peer(Alchemical(app, engine_options=options_in(config)), base())


def dualchemy(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    from dualchemy import SQLAlchemy

    app.config.update(config, SQLALCHEMY_DATABASE_URI=url)
    db = SQLAlchemy(app)
    return Peer(db, db.Model)


def options_in(config: Mapping[str, Any]) -> Any:
    """Return the options that extensions give to their engines."""
    return config.get("SQLALCHEMY_ENGINE_OPTIONS", {})


def async_factory(url: str, config: Mapping[str, Any]) -> Any:
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    engine = create_async_engine(async_url(url), **options_in(config))
    return async_sessionmaker(engine, expire_on_commit=False)


def async_url(url: str) -> str:
    return url.replace("sqlite:", "sqlite+aiosqlite:", 1)


def quart_floor(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    from quart import g

    @app.teardown_appcontext
    async def close(error: BaseException | None) -> None:
        session = g.pop("session", None)
        if session is not None:
            await session.close()

    return Peer(SessionOnG(g, async_factory(url, config)), base())


def quart_with(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    return Peer(Model=base(), make_session=async_factory(url, config))


def quart_sqlalchemy(app: Any, url: str, config: Mapping[str, Any]) -> Peer:
    from quart_sqlalchemy import SQLAlchemyConfig
    from quart_sqlalchemy.framework import QuartSQLAlchemy

    engine = {"url": async_url(url), **options_in(config)}
    binds = {"default": {"engine": engine}}
    db = QuartSQLAlchemy(SQLAlchemyConfig(binds=binds), app)
    return Peer(Model=base(), make_session=db.bind.Session)


FLASK: dict[str, Contender] = {
    FLOOR: flask_floor,
    BARE: bare,
    WITH: flask_with,
    FSA: flask_sqlalchemy,
    LITE: flask_sqlalchemy_lite,
    ADVANCED: advanced_alchemy,
    ALCHEMICAL: alchemical,
    DUALCHEMY: dualchemy,
}
QUART: dict[str, Contender] = {
    FLOOR: quart_floor,
    BARE: bare,
    WITH: quart_with,
    QSA: quart_sqlalchemy,
    DUALCHEMY: dualchemy,
}
