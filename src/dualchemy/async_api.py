"""What does ``db.aio`` offer, which is ``db`` itself under Quart?

Nothing is decided here: each helper runs the function that the sync API calls, in one
crossing of SQLAlchemy's greenlet bridge.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    TypeVar,
    TypeVarTuple,
    Unpack,
    overload,
)

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sa_asyncio
from sqlalchemy.util import greenlet_spawn

from . import lookup, schema
from .async_scope import AsyncRegistry
from .async_sessions import (
    AsyncScopedSession,
    AsyncSession,
    AsyncSessionmaker,
)
from .awaiting import HelperCall
from .pagination import (
    AsyncSelectPagination,
    KeysetOptions,
    KeysetPagination,
    PageOptions,
    Walk,
    aiterate,
    keyset_page,
    select_page,
)
from .scope import current_registration, current_scope, registration_of
from .sessions import Sessionmaker
from .shielding import finish

if TYPE_CHECKING:
    from flask import Flask
    from quart import Quart

    from .extension import Extension
    from .testing.counting import QueryCount  # only a test has one

__all__ = ["AsyncAPI", "AsyncHelpers"]

O = TypeVar("O", bound=object)
T = TypeVar("T")
TP = TypeVar("TP", bound=tuple[Any, ...])
Ts = TypeVarTuple("Ts")
R = TypeVar("R")
P = ParamSpec("P")


class AsyncHelpers:
    """What ``db`` itself offers under Quart. All of it needs an app context and a
    running event loop.
    """

    session: AsyncScopedSession
    """The session of the current app context: an
    :class:`~sqlalchemy.ext.asyncio.async_scoped_session` of :class:`.AsyncSession`,
    opened on first use and closed when the context ends.
    """

    def __init__(
        self,
        db: Extension,
        session_options: Mapping[str, Any],
        sync_sessionmaker: Sessionmaker,
    ) -> None:
        self._db = db
        own = {"class_", "scopefunc", "bind", "binds"}  # the sync session's alone
        options = {
            "expire_on_commit": False,
            "query_cls": db.Query,
            **{k: v for k, v in session_options.items() if k not in own},
        }
        self._sessionmaker: sa_asyncio.async_sessionmaker[AsyncSession]
        self._sessionmaker = AsyncSessionmaker(sync_sessionmaker, **options)
        scopefunc = session_options.get("scopefunc")
        self.session = AsyncScopedSession(
            self._sessionmaker, scopefunc or (lambda: current_scope(db))
        )
        if scopefunc is None:
            self.session.registry = AsyncRegistry(db, self._sessionmaker)

    @property
    def engines(self) -> Mapping[str | None, sa_asyncio.AsyncEngine]:
        """The engines of the current app and event loop by bind key, each made when it
        is first used. ``None`` is the key of the default bind.

        :raises UnknownBindKeyError: on looking up a key that is not configured.
        """
        return current_registration(self._db).engines.aio().map

    @property
    def engine(self) -> sa_asyncio.AsyncEngine:
        """The engine of the default bind.

        :raises UnknownBindKeyError: if no default bind is configured.
        """
        return self.engines[None]

    def _call(
        self,
        name: str,
        function: Callable[Concatenate[orm.Session, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Coroutine[Any, Any, R]:
        """Run a function on the sync session of the current async session."""
        return HelperCall(
            f"db.{name}", self.session().run_sync(function, *args, **kwargs)
        )

    def get_or_404(
        self,
        entity: type[O],
        ident: Any,
        *,
        description: str | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, O]:
        """Return the row of a model with this primary key.

        :param entity: The model.
        :param ident: The primary key: a value, or a tuple or dict of them.
        :param description: Shown on the error page.
        :param kwargs: As for :meth:`sqlalchemy.orm.Session.get`.
        :raises werkzeug.exceptions.NotFound: if there is none.
        """
        return self._call(
            "get_or_404", lookup.get_or_404, entity, ident, description, kwargs
        )

    @overload
    def first_or_404(
        self,
        statement: sa.Select[tuple[T, *tuple[Any, ...]]],
        *,
        description: str | None = None,
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def first_or_404(
        self,
        statement: sa.Select[T, *Ts],  # type: ignore[type-arg,valid-type,unused-ignore]
        *,
        description: str | None = None,
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def first_or_404(
        self, statement: sa.Executable, *, description: str | None = None
    ) -> Coroutine[Any, Any, Any]: ...

    def first_or_404(
        self, statement: sa.Executable, *, description: str | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Return the first column (or entity) of the first row.

        :param statement: A ``select``.
        :param description: Shown on the error page.
        :raises werkzeug.exceptions.NotFound: if there is no row.
        """
        return self._call("first_or_404", lookup.first_or_404, statement, description)

    @overload
    def one_or_404(
        self,
        statement: sa.Select[tuple[T, *tuple[Any, ...]]],
        *,
        description: str | None = None,
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def one_or_404(
        self,
        statement: sa.Select[T, *Ts],  # type: ignore[type-arg,valid-type,unused-ignore]
        *,
        description: str | None = None,
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def one_or_404(
        self, statement: sa.Executable, *, description: str | None = None
    ) -> Coroutine[Any, Any, Any]: ...

    def one_or_404(
        self, statement: sa.Executable, *, description: str | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Return the first column (or entity) of the only row.

        :param statement: A ``select``.
        :param description: Shown on the error page.
        :raises werkzeug.exceptions.NotFound: if there is no row, or more than one.
        """
        return self._call("one_or_404", lookup.one_or_404, statement, description)

    @overload
    def paginate(
        self, select: sa.Select[tuple[T]], **options: Unpack[PageOptions]
    ) -> Coroutine[Any, Any, AsyncSelectPagination[T]]: ...

    @overload
    def paginate(
        self, select: sa.Select[TP], **options: Unpack[PageOptions]
    ) -> Coroutine[Any, Any, AsyncSelectPagination[sa.Row[TP]]]: ...

    @overload
    def paginate(
        self,
        select: sa.Select[T],  # type: ignore[type-var,unused-ignore]
        **options: Unpack[PageOptions],
    ) -> Coroutine[Any, Any, AsyncSelectPagination[T]]: ...

    @overload
    def paginate(
        self,
        select: sa.Select[*Ts],  # type: ignore[type-arg,valid-type,unused-ignore]
        **options: Unpack[PageOptions],
    ) -> Coroutine[Any, Any, AsyncSelectPagination[sa.Row[*Ts]]]: ...  # type: ignore[type-arg,valid-type,unused-ignore]

    @overload
    def paginate(
        self, select: sa.Executable, **options: Unpack[PageOptions]
    ) -> Coroutine[Any, Any, AsyncSelectPagination[Any]]: ...

    def paginate(
        self, select: Any, **options: Unpack[PageOptions]
    ) -> Coroutine[Any, Any, AsyncSelectPagination[Any]]:
        """Return a page of a statement's rows; see :meth:`.SyncHelpers.paginate`."""
        return self._call(
            "paginate",
            lambda session: select_page(
                AsyncSelectPagination, session, select, options
            ),
        )

    @overload
    def paginate_keyset(
        self, select: sa.Select[tuple[T]], **options: Unpack[KeysetOptions]
    ) -> Coroutine[Any, Any, KeysetPagination[T]]: ...

    @overload
    def paginate_keyset(
        self, select: sa.Select[TP], **options: Unpack[KeysetOptions]
    ) -> Coroutine[Any, Any, KeysetPagination[sa.Row[TP]]]: ...

    @overload
    def paginate_keyset(
        self,
        select: sa.Select[T],  # type: ignore[type-var,unused-ignore]
        **options: Unpack[KeysetOptions],
    ) -> Coroutine[Any, Any, KeysetPagination[T]]: ...

    @overload
    def paginate_keyset(
        self,
        select: sa.Select[*Ts],  # type: ignore[type-arg,valid-type,unused-ignore]
        **options: Unpack[KeysetOptions],
    ) -> Coroutine[Any, Any, KeysetPagination[sa.Row[*Ts]]]: ...  # type: ignore[type-arg,valid-type,unused-ignore]

    @overload
    def paginate_keyset(
        self, select: sa.Executable, **options: Unpack[KeysetOptions]
    ) -> Coroutine[Any, Any, KeysetPagination[Any]]: ...

    def paginate_keyset(
        self, select: Any, **options: Unpack[KeysetOptions]
    ) -> Coroutine[Any, Any, KeysetPagination[Any]]:
        """Return a page of a statement's rows that begins at a cursor; see
        :meth:`.SyncHelpers.paginate_keyset`.
        """
        return self._call("paginate_keyset", keyset_page, select, options)

    @overload
    def pages(
        self, select: sa.Select[tuple[T]], *, per_page: int = 1000
    ) -> AsyncIterator[list[T]]: ...

    @overload
    def pages(
        self, select: sa.Select[TP], *, per_page: int = 1000
    ) -> AsyncIterator[list[sa.Row[TP]]]: ...

    @overload
    def pages(
        self,
        select: sa.Select[T],  # type: ignore[type-var,unused-ignore]
        *,
        per_page: int = 1000,
    ) -> AsyncIterator[list[T]]: ...

    @overload
    def pages(
        self,
        select: sa.Select[*Ts],  # type: ignore[type-arg,valid-type,unused-ignore]
        *,
        per_page: int = 1000,
    ) -> AsyncIterator[list[sa.Row[*Ts]]]: ...  # type: ignore[type-arg,valid-type,unused-ignore]

    @overload
    def pages(
        self, select: sa.Executable, *, per_page: int = 1000
    ) -> AsyncIterator[list[Any]]: ...

    def pages(self, select: Any, *, per_page: int = 1000) -> AsyncIterator[list[Any]]:
        """Read all rows of a statement, a list of some at a time: ``async for page in
        db.pages(select(User)): ...``; see :meth:`.SyncHelpers.pages`.
        """
        return aiterate(self.session(), Walk(select, per_page))

    def create_all(
        self, bind_key: schema.BindKeys = schema.ALL
    ) -> Coroutine[Any, Any, None]:
        """Create the tables that do not exist.

        :param bind_key: A bind key or a list of them; all by default.
        :raises UnknownBindKeyError: if a key, or a table's key, is not configured.
        """
        return self._on_metadatas("create_all", bind_key)

    def drop_all(
        self, bind_key: schema.BindKeys = schema.ALL
    ) -> Coroutine[Any, Any, None]:
        """Drop the tables.

        :param bind_key: A bind key or a list of them; all by default.
        :raises UnknownBindKeyError: if a key, or a table's key, is not configured.
        """
        return self._on_metadatas("drop_all", bind_key)

    def reflect(
        self, bind_key: schema.BindKeys = schema.ALL
    ) -> Coroutine[Any, Any, None]:
        """Load the definitions of the tables that the databases hold.

        :param bind_key: A bind key or a list of them; all by default.
        :raises UnknownBindKeyError: if a key is not configured.
        """
        return self._on_metadatas("reflect", bind_key)

    def _on_metadatas(
        self, operation: schema.Operation, bind_key: schema.BindKeys
    ) -> Coroutine[Any, Any, None]:
        engines = self.engines
        targets = schema.targets(self._db.metadatas, engines, bind_key)

        async def run() -> None:
            for key, metadata in targets:
                async with engines[key].begin() as connection:
                    await connection.run_sync(getattr(metadata, operation))

        return HelperCall(f"db.{operation}", run())

    def count_queries(
        self, bind_key: schema.BindKeys = schema.ALL, *, app: Any = None
    ) -> QueryCount:
        """Capture the statements of a block; see :meth:`.SyncHelpers.count_queries`."""
        return self._db.sync.count_queries(bind_key, app=app)

    def assert_queries(
        self, count: int, bind_key: schema.BindKeys = schema.ALL, *, app: Any = None
    ) -> QueryCount:
        """:meth:`count_queries`, which must be so many at the end of the block.

        :raises AssertionError: if they are not; it lists them.
        """
        return self._db.sync.assert_queries(count, bind_key, app=app)

    @asynccontextmanager
    async def isolation(self, app: Flask | Quart | None = None) -> AsyncIterator[None]:
        """Isolate a test, as :meth:`.SyncHelpers.isolation` does, on a connection of the
        async driver and the running event loop.

        The sync API reaches it from other threads only.

        :param app: The current one if ``None``.
        :raises IsolationError: if connections are in use; later, for what cannot be
            isolated.
        :raises ContextError: if there is no current app, or it is not one of ``db``.
        """
        from .testing.isolation import isolate

        isolation = isolate(registration_of(self._db, app).engines, "async")
        await greenlet_spawn(isolation.__enter__)
        try:
            yield
        finally:
            await finish(greenlet_spawn(isolation.__exit__, None, None, None))

    def dispose(self) -> Coroutine[Any, Any, None]:
        """Close the pooled connections of the current app's async engines on this
        event loop.
        """
        engines = current_registration(self._db).engines
        return HelperCall("db.dispose", engines.dispose_async())


class AsyncAPI(AsyncHelpers):
    """``db.aio``: the async API, in either framework and in scripts."""

    @property
    def sessionmaker(self) -> sa_asyncio.async_sessionmaker[AsyncSession]:
        """The factory of sessions that you close yourself, with the same routing:
        ``async with db.aio.sessionmaker() as session`` or ``.begin()``. Each belongs to
        the app whose context is active, and to the event loop that runs, when it first
        runs a statement.
        """
        return self._sessionmaker
