"""What is ``db``?

:class:`Extension` is what does not depend on the framework: models, tables, metadata,
and the two APIs. :class:`SQLAlchemy` adds the current framework's API under its own
name; :mod:`dualchemy.flask` and :mod:`dualchemy.quart` tell type checkers which.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache, cached_property, wraps
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, orm
from sqlalchemy.util import LRUCache

from .errors import ConfigError, show_url
from .frameworks import current, current_context, framework_of
from .models import Model, make_model
from .query import Query
from .routing import KnownKeys, Metadatas
from .scope import EXTENSION, Registration, close_scope
from .sessions import Session
from .sync_api import SyncAPI

if TYPE_CHECKING:
    from flask import Flask
    from quart import Quart

    from .async_api import AsyncAPI
    from .frameworks.base import AppContext
    from .tables import Table

__all__ = ["Extension", "SQLAlchemy"]


class Extension:
    """Models, tables and both APIs; see :class:`SQLAlchemy`."""

    def __init__(
        self,
        app: Flask | Quart | None = None,
        *,
        metadata: sa.MetaData | None = None,
        session_options: Mapping[str, Any] | None = None,
        query_class: type[Query[Any]] = Query,
        model_class: type[Any] = Model,
        engine_options: Mapping[str, Any] | None = None,
        add_models_to_shell: bool = True,
        disable_autonaming: bool = False,
    ) -> None:
        from .tables import make_table_class

        self.Query = query_class
        """The class of ``Model.query`` and of dynamic relationships. Legacy."""

        self._engine_options = dict(engine_options or {})
        self._session_options = dict(session_options or {})
        self._add_models_to_shell = add_models_to_shell
        self._tracks_modifications = False
        self._bind_keys: KnownKeys = LRUCache(500)  # as many as an engine has SQL for
        _check_session_class(self._session_options)

        self.Model: type[Any]
        """The base class of models: ``model_class`` if that derives from
        :class:`.Model`, else a class made from it.
        """
        self.metadatas: Metadatas
        """Bind keys to :class:`sqlalchemy.schema.MetaData`; ``None`` is the default."""
        self.Model, self.metadatas = make_model(
            self,
            model_class,
            metadata=metadata,
            disable_autonaming=disable_autonaming,
        )

        self.Table: type[Table] = make_table_class(self.metadatas)
        """A :class:`sqlalchemy.schema.Table` that takes a ``bind_key`` for metadata."""

        self.sync: SyncAPI = SyncAPI(self, self._session_options)
        """The sync API, in either framework and in scripts."""

        if app is not None:
            self.init_app(app)

    @cached_property
    def aio(self) -> AsyncAPI:
        """The async API, in either framework and in scripts."""
        from .async_api import AsyncAPI

        # One session class for both, so that an event listener hears both.
        return AsyncAPI(self, self._session_options, self.sync._sessionmaker)

    @property
    def metadata(self) -> sa.MetaData:
        """The default metadata, ``metadatas[None]``."""
        return self.metadatas[None]

    def init_app(self, app: Flask | Quart) -> None:
        """Read an app's ``SQLALCHEMY_*`` config and serve the app from now on.

        No connection is made and no driver imported. Later changes of the config are
        not seen.

        :param app: A Flask or Quart application, configured.
        :raises ConfigError: for a mistake in the config; the message names the key.
        :raises RuntimeError: if the app has a ``SQLAlchemy`` instance already.
        :raises TypeError: if this is no application.
        """
        from .async_scope import aclose_scope
        from .config import read_config
        from .engines import Engines

        framework = framework_of(app)
        if "sqlalchemy" in app.extensions:
            raise RuntimeError(
                "A 'SQLAlchemy' instance has already been registered on this"
                f" {framework.name} app {app.name!r}. Import and use that instance"
                " instead."
            )
        config = read_config(app.config, self._engine_options, app.instance_path)
        for key in config.binds:
            self.metadatas.of(key)
        engines = Engines(
            config,
            share_memory_connection=not framework.is_async,
            instrument=_recorder() if config.record_queries else None,
        )
        if config.track_modifications:
            self._track_modifications()
        app.extensions["sqlalchemy"] = self
        app.extensions[EXTENSION] = Registration(self, framework, config, engines)
        if "scopefunc" in self._session_options:
            framework.on_context_end(app, self._close, self._aclose)
        else:
            framework.on_context_end(app, close_scope, aclose_scope)
        framework.on_shutdown(app, engines.dispose_async)
        framework.add_templates(app)
        if self._add_models_to_shell:
            framework.add_shell_context(app, self._shell_context)

    def _track_modifications(self) -> None:
        from .signals import track

        if not self._tracks_modifications:
            track(self.sync.sessionmaker.class_)
            self._tracks_modifications = True

    def _close(self, context: AppContext) -> None:
        close_scope(context)
        self.sync.session.remove()

    async def _aclose(self, context: AppContext) -> None:
        from .async_scope import aclose_scope, aremove

        try:
            await aclose_scope(context)
        finally:
            await aremove(self.aio.session, self.sync.session)

    def _shell_context(self) -> dict[str, Any]:
        models = {m.class_.__name__: m.class_ for m in self.Model.registry.mappers}
        return {**models, "db": self}

    def relationship(self, *args: Any, **kwargs: Any) -> orm.RelationshipProperty[Any]:
        """:func:`sqlalchemy.orm.relationship`, with :attr:`Query` as the class of a
        dynamic relationship and its backref.
        """
        self._set_query_class(kwargs)
        return orm.relationship(*args, **kwargs)

    def dynamic_loader(
        self, argument: Any, **kwargs: Any
    ) -> orm.RelationshipProperty[Any]:
        """:func:`sqlalchemy.orm.dynamic_loader`, with :attr:`Query` as its class."""
        self._set_query_class(kwargs)
        return orm.dynamic_loader(argument, **kwargs)

    def _set_query_class(self, kwargs: dict[str, Any]) -> None:
        kwargs.setdefault("query_class", self.Query)
        backref = kwargs.get("backref")
        if backref is not None:
            name, options = (backref, {}) if isinstance(backref, str) else backref
            kwargs["backref"] = name, {"query_class": self.Query, **options}

    def __getattr__(self, name: str) -> Any:
        """The short cuts ``db.Column``, ``db.select`` and so on: every public name of
        ``sqlalchemy`` and ``sqlalchemy.orm``, and ``db.event``.
        """
        if name == "event":
            return event
        if name == "relation":
            return self.relationship
        if not name.startswith("_"):
            for module in (sa, orm):
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}"
        )

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What ``isinstance`` sees besides the type: also Flask-SQLAlchemy's class, once
        somebody imported that, for packages that check.
        """
        cls: Any = type(self)
        genuine = getattr(sys.modules.get("flask_sqlalchemy"), "SQLAlchemy", None)
        if not isinstance(genuine, type) or issubclass(cls, genuine):
            return cls
        return _class_of_both(cls, genuine)

    def __repr__(self) -> str:
        name = type(self).__name__
        context = current_context()
        registration = context and context.app.extensions.get(EXTENSION)
        if not registration or registration.db is not self:
            return f"<{name}>"
        first, *others = registration.config.binds.values()
        more = f" +{len(others)}" if others else ""
        return f"<{name} {show_url(first.url)}{more}>"


@cache
def _class_of_both(cls: Any, genuine: Any) -> type[Any]:
    described = ("__module__", "__qualname__", "__doc__")
    namespace = {name: getattr(cls, name) for name in described}
    both: type[Any] = type(cls.__name__, (cls, genuine), namespace)
    return both


def _recorder() -> Callable[[sa.Engine], None]:
    from .recording import record

    return record


def _check_session_class(options: Mapping[str, Any]) -> None:
    cls = options.get("class_", Session)
    if not (isinstance(cls, type) and issubclass(cls, Session)):
        raise ConfigError(
            f"session_options['class_']: expected a subclass of 'dualchemy.Session',"
            f" got {cls!r}. The async API proxies an instance of the same class."
        )


def _forwarded(name: str) -> Callable[..., Any]:
    @wraps(getattr(SyncAPI, name))
    def method(self: SQLAlchemy, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._api(), name)(*args, **kwargs)

    return method


class SQLAlchemy(Extension):
    """One ``db`` for Quart and Flask.

    ``db.session``, ``db.engine``, ``db.engines`` and the helpers are those of the
    framework whose app context is active: of :class:`.AsyncAPI`, to be awaited, under
    Quart, and of :class:`.SyncAPI` under Flask.

    :param app: Call :meth:`init_app` on this application now.
    :param metadata: The default metadata, for a naming convention. With a SQLAlchemy
        2.x base, set it on the base instead.
    :param session_options: Arguments for every session, as for
        :class:`sqlalchemy.orm.sessionmaker`. ``class_`` is a subclass of
        :class:`.Session`; ``scopefunc`` takes the place of the app context.
    :param query_class: The class of legacy queries.
    :param model_class: A subclass of :class:`.Model` or of SQLAlchemy's
        ``DeclarativeBase`` or ``DeclarativeBaseNoMeta``, a 1.x declarative base, or a
        plain class to make a base from.
    :param engine_options: Arguments for every engine, as for
        :func:`sqlalchemy.create_engine`. The config comes first.
    :param add_models_to_shell: Offer ``db`` and the models in the framework's shell.
    :param disable_autonaming: Do not make ``__tablename__`` from the class name.
    :raises ConfigError: if an argument cannot be used.
    """

    def _api(self) -> Any:
        framework, _ = current()
        if framework is not None and framework.is_async:
            return self.aio
        return self.sync

    @property
    def session(self) -> Any:
        """The session of the current app context.

        Outside of any, a stand-in that can be kept, and finds the session when used.
        """
        framework, _ = current()
        if framework is None:
            return self._session_stand_in
        return (self.aio if framework.is_async else self.sync).session

    @cached_property
    def _session_stand_in(self) -> CurrentSession:
        return CurrentSession(self)

    @property
    def engine(self) -> Any:
        """The engine of the default bind."""
        return self._api().engine

    @property
    def engines(self) -> Any:
        """The engines of the current app by bind key."""
        return self._api().engines

    get_engine: Callable[..., Any] = _forwarded("get_engine")
    get_or_404: Callable[..., Any] = _forwarded("get_or_404")
    first_or_404: Callable[..., Any] = _forwarded("first_or_404")
    one_or_404: Callable[..., Any] = _forwarded("one_or_404")
    paginate: Callable[..., Any] = _forwarded("paginate")
    paginate_keyset: Callable[..., Any] = _forwarded("paginate_keyset")
    pages: Callable[..., Any] = _forwarded("pages")
    create_all: Callable[..., Any] = _forwarded("create_all")
    drop_all: Callable[..., Any] = _forwarded("drop_all")
    reflect: Callable[..., Any] = _forwarded("reflect")
    isolation: Callable[..., Any] = _forwarded("isolation")
    count_queries: Callable[..., Any] = _forwarded("count_queries")
    assert_queries: Callable[..., Any] = _forwarded("assert_queries")
    dispose: Callable[..., Any] = _forwarded("dispose")


class CurrentSession:
    """``db.session`` as taken outside an app context, at import time say.

    Each use is passed on to the scoped session of the app context that is active then,
    and ``isinstance`` sees that one's class.
    """

    __slots__ = ("_db",)

    def __init__(self, db: SQLAlchemy) -> None:
        object.__setattr__(self, "_db", db)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self._db._api().session)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db._api().session, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._db._api().session, name, value)

    def __call__(self, **kwargs: Any) -> Any:
        return self._db._api().session(**kwargs)

    def __contains__(self, instance: object) -> bool:
        return instance in self._db._api().session

    def __iter__(self) -> Any:
        return iter(self._db._api().session)

    def __repr__(self) -> str:
        return f"<session of {self._db!r}>"
