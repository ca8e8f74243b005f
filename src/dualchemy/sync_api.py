"""What does ``db.sync`` offer, which is ``db`` itself under Flask?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack, overload

import sqlalchemy as sa
from sqlalchemy import orm

from .scope import SyncRegistry, current_registration, registration_of
from .sessions import ScopedSession, Session, Sessionmaker

if TYPE_CHECKING:
    from flask import Flask
    from quart import Quart

    from .extension import Extension
    from .pagination import (
        KeysetOptions,
        KeysetPagination,
        PageOptions,
        SelectPagination,
    )
    from .schema import BindKeys, Operation
    from .testing.counting import QueryCount

__all__ = ["SyncAPI", "SyncHelpers"]

O = TypeVar("O", bound=object)
T = TypeVar("T")
# A statement over two columns is a Select[tuple[int, str]] in SQLAlchemy 2.0 and a
# Select[int, str] in 2.1, and its rows likewise. On each, the other's overloads are void.
TP = TypeVar("TP", bound=tuple[Any, ...])
Ts = TypeVarTuple("Ts")


class SyncHelpers:
    """What ``db`` itself offers under Flask. All of it needs an app context."""

    session: ScopedSession
    """The session of the current app context: a
    :class:`~sqlalchemy.orm.scoped_session` of :class:`.Session`, opened on first use
    and closed when the context ends.
    """

    def __init__(self, db: Extension, session_options: Mapping[str, Any]) -> None:
        self._db = db
        options = {"class_": Session, "query_cls": db.Query, **session_options}
        scopefunc = options.pop("scopefunc", None)
        self._sessionmaker = Sessionmaker(db, **options)
        self.session = ScopedSession(self._sessionmaker, scopefunc)
        if scopefunc is None:
            self.session.registry = SyncRegistry(db, self._sessionmaker)

    @property
    def engines(self) -> Mapping[str | None, sa.Engine]:
        """The engines of the current app by bind key, each made when it is first used.
        ``None`` is the key of the default bind.

        :raises UnknownBindKeyError: on looking up a key that is not configured.
        """
        return current_registration(self._db).engines.sync

    @property
    def engine(self) -> sa.Engine:
        """The engine of the default bind.

        :raises UnknownBindKeyError: if no default bind is configured.
        """
        return self.engines[None]

    def get_engine(self, bind_key: str | None = None, **kwargs: Any) -> sa.Engine:
        """Return the engine of a bind.

        .. deprecated:: 0.1
            As in Flask-SQLAlchemy 3.0. Use ``engines[bind_key]``.
        """
        warnings.warn(
            "'get_engine' is deprecated. Use 'engine' or 'engines[bind_key]'.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.engines[kwargs.get("bind", bind_key)]

    def get_or_404(
        self,
        entity: type[O],
        ident: Any,
        *,
        description: str | None = None,
        **kwargs: Any,
    ) -> O:
        """Return the row of a model with this primary key.

        :param entity: The model.
        :param ident: The primary key: a value, or a tuple or dict of them.
        :param description: Shown on the error page.
        :param kwargs: As for :meth:`sqlalchemy.orm.Session.get`.
        :raises werkzeug.exceptions.NotFound: if there is none.
        """
        from .lookup import get_or_404

        return get_or_404(self.session(), entity, ident, description, kwargs)

    @overload
    def first_or_404(
        self,
        statement: sa.Select[tuple[T, *tuple[Any, ...]]],
        *,
        description: str | None = None,
    ) -> T: ...

    @overload
    def first_or_404(
        self,
        statement: sa.Select[T, *Ts],  # type: ignore[type-arg,valid-type,unused-ignore]
        *,
        description: str | None = None,
    ) -> T: ...  # type: ignore[type-var,unused-ignore]

    @overload
    def first_or_404(
        self, statement: sa.Executable, *, description: str | None = None
    ) -> Any: ...

    def first_or_404(
        self, statement: sa.Executable, *, description: str | None = None
    ) -> Any:
        """Return the first column (or entity) of the first row.

        :param statement: A ``select``.
        :param description: Shown on the error page.
        :raises werkzeug.exceptions.NotFound: if there is no row.
        """
        from .lookup import first_or_404

        return first_or_404(self.session(), statement, description)

    @overload
    def one_or_404(
        self,
        statement: sa.Select[tuple[T, *tuple[Any, ...]]],
        *,
        description: str | None = None,
    ) -> T: ...

    @overload
    def one_or_404(
        self,
        statement: sa.Select[T, *Ts],  # type: ignore[type-arg,valid-type,unused-ignore]
        *,
        description: str | None = None,
    ) -> T: ...  # type: ignore[type-var,unused-ignore]

    @overload
    def one_or_404(
        self, statement: sa.Executable, *, description: str | None = None
    ) -> Any: ...

    def one_or_404(
        self, statement: sa.Executable, *, description: str | None = None
    ) -> Any:
        """Return the first column (or entity) of the only row.

        :param statement: A ``select``.
        :param description: Shown on the error page.
        :raises werkzeug.exceptions.NotFound: if there is no row, or more than one.
        """
        from .lookup import one_or_404

        return one_or_404(self.session(), statement, description)

    @overload
    def paginate(
        self, select: sa.Select[tuple[T]], **options: Unpack[PageOptions]
    ) -> SelectPagination[T]: ...

    @overload
    def paginate(
        self, select: sa.Select[TP], **options: Unpack[PageOptions]
    ) -> SelectPagination[sa.Row[TP]]: ...

    @overload
    def paginate(
        self,
        select: sa.Select[T],  # type: ignore[type-var,unused-ignore]
        **options: Unpack[PageOptions],
    ) -> SelectPagination[T]: ...

    @overload
    def paginate(
        self,
        select: sa.Select[*Ts],  # type: ignore[type-arg,valid-type,unused-ignore]
        **options: Unpack[PageOptions],
    ) -> SelectPagination[sa.Row[*Ts]]: ...  # type: ignore[type-arg,valid-type,unused-ignore]

    @overload
    def paginate(
        self, select: sa.Executable, **options: Unpack[PageOptions]
    ) -> SelectPagination[Any]: ...

    def paginate(
        self, select: Any, **options: Unpack[PageOptions]
    ) -> SelectPagination[Any]:
        """Return a page of a statement's rows.

        Entities or values of one column come as they are, several columns as rows.

        :param select: A ``select`` or a union, ordered so that the pages are stable.
        :param page: The number of the page, from 1. Taken from the ``page`` argument of
            the current request if ``None``; 1 without one.
        :param per_page: The number of items on a page. Taken from the ``per_page``
            argument of the current request if ``None``; 20 without one.
        :param max_per_page: The limit of ``per_page`` (default 100); ``None`` for no
            limit.
        :param error_out: Abort with ``404 Not Found`` if ``page`` or ``per_page`` is
            not a positive integer, or if the page is empty and not the first (the
            default). If false, defaults take the place of bad values, and such a page
            is empty.
        :param count: Find the total, by a second statement where the page does not
            show it by itself (``True``, the default), or do not (``False``). A number:
            count to that and no further. ``"estimate"``: ask the planner of PostgreSQL,
            MySQL or MariaDB, and count if that is below 10,000, or on another database.
        :raises werkzeug.exceptions.NotFound: see ``error_out``.
        :raises TypeError: if an argument is unknown or of a wrong type.
        :raises ValueError: if ``max_per_page`` or ``count`` is not positive.
        :raises sqlalchemy.exc.ArgumentError: if the statement has a ``LIMIT`` that is
            not a number.
        """
        from .pagination.offset import SelectPagination, select_page

        return select_page(SelectPagination, self.session(), select, options)

    @overload
    def paginate_keyset(
        self, select: sa.Select[tuple[T]], **options: Unpack[KeysetOptions]
    ) -> KeysetPagination[T]: ...

    @overload
    def paginate_keyset(
        self, select: sa.Select[TP], **options: Unpack[KeysetOptions]
    ) -> KeysetPagination[sa.Row[TP]]: ...

    @overload
    def paginate_keyset(
        self,
        select: sa.Select[T],  # type: ignore[type-var,unused-ignore]
        **options: Unpack[KeysetOptions],
    ) -> KeysetPagination[T]: ...

    @overload
    def paginate_keyset(
        self,
        select: sa.Select[*Ts],  # type: ignore[type-arg,valid-type,unused-ignore]
        **options: Unpack[KeysetOptions],
    ) -> KeysetPagination[sa.Row[*Ts]]: ...  # type: ignore[type-arg,valid-type,unused-ignore]

    @overload
    def paginate_keyset(
        self, select: sa.Executable, **options: Unpack[KeysetOptions]
    ) -> KeysetPagination[Any]: ...

    def paginate_keyset(
        self, select: Any, **options: Unpack[KeysetOptions]
    ) -> KeysetPagination[Any]:
        """Return a page of a statement's rows that begins at a cursor. Its cost does not
        grow with the number of rows before it, if an index has the statement's order.

        Items are as for :meth:`paginate`. An order that rows may share is settled by
        the primary keys.

        :param select: A ``select``, ordered by columns and expressions.
        :param per_page: The number of items on a page. Taken from the ``per_page``
            argument of the current request if ``None``; 20 without one.
        :param cursor: The ``next_cursor``, ``prev_cursor`` or ``last_cursor`` of another
            page. Taken from the ``cursor`` argument of the current request if ``None``;
            the first page without one, or if it is empty.
        :param max_per_page: The limit of ``per_page`` (default 100); ``None`` for no
            limit.
        :param error_out: Abort with ``400 Bad Request`` if the cursor was not made by
            this app for this order, and with ``404 Not Found`` if ``per_page`` is not a
            positive integer (the default). If false, the first page and the default
            take their places.
        :raises werkzeug.exceptions.HTTPException: see ``error_out``.
        :raises ConfigError: if the app has no ``SECRET_KEY`` to sign cursors with.
        :raises TypeError: if an argument is unknown or of a wrong type.
        :raises ValueError: if ``max_per_page`` is not positive.
        :raises sqlalchemy.exc.ArgumentError: if the statement has a ``LIMIT``,
            ``DISTINCT ON`` or window functions, or an order that cannot be compared.
        """
        from .pagination.keyset import keyset_page

        return keyset_page(self.session(), select, options)

    @overload
    def pages(
        self, select: sa.Select[tuple[T]], *, per_page: int = 1000
    ) -> Iterator[list[T]]: ...

    @overload
    def pages(
        self, select: sa.Select[TP], *, per_page: int = 1000
    ) -> Iterator[list[sa.Row[TP]]]: ...

    @overload
    def pages(
        self,
        select: sa.Select[T],  # type: ignore[type-var,unused-ignore]
        *,
        per_page: int = 1000,
    ) -> Iterator[list[T]]: ...

    @overload
    def pages(
        self,
        select: sa.Select[*Ts],  # type: ignore[type-arg,valid-type,unused-ignore]
        *,
        per_page: int = 1000,
    ) -> Iterator[list[sa.Row[*Ts]]]: ...  # type: ignore[type-arg,valid-type,unused-ignore]

    @overload
    def pages(
        self, select: sa.Executable, *, per_page: int = 1000
    ) -> Iterator[list[Any]]: ...

    def pages(self, select: Any, *, per_page: int = 1000) -> Iterator[list[Any]]:
        """Read all rows of a statement, a list of some at a time, each by a statement of
        its own: ``for page in db.pages(select(User)): ...``.

        You may commit in between. Rows that are there all the time come exactly once,
        whatever is inserted or deleted meanwhile.

        :param select: As for :meth:`paginate_keyset`.
        :param per_page: How many rows to read at a time.
        :raises TypeError: if an argument is of a wrong type.
        :raises ValueError: if ``per_page`` is not positive.
        """
        from .pagination.keyset import Walk, iterate

        return iterate(self.session(), Walk(select, per_page))

    def create_all(self, bind_key: BindKeys = "__all__") -> None:
        """Create the tables that do not exist.

        :param bind_key: A bind key or a list of them; all by default.
        :raises UnknownBindKeyError: if a key, or a table's key, is not configured.
        """
        self._on_metadatas("create_all", bind_key)

    def drop_all(self, bind_key: BindKeys = "__all__") -> None:
        """Drop the tables.

        :param bind_key: A bind key or a list of them; all by default.
        :raises UnknownBindKeyError: if a key, or a table's key, is not configured.
        """
        self._on_metadatas("drop_all", bind_key)

    def reflect(self, bind_key: BindKeys = "__all__") -> None:
        """Load the definitions of the tables that the databases hold.

        :param bind_key: A bind key or a list of them; all by default.
        :raises UnknownBindKeyError: if a key is not configured.
        """
        self._on_metadatas("reflect", bind_key)

    def _on_metadatas(self, operation: Operation, bind_key: BindKeys) -> None:
        from .schema import targets

        engines = self.engines
        for key, metadata in targets(self._db.metadatas, engines, bind_key):
            with engines[key].begin() as connection:
                getattr(metadata, operation)(connection)

    def count_queries(
        self, bind_key: BindKeys = "__all__", *, app: Any = None
    ) -> QueryCount:
        """Capture the statements that an app's databases get in a block, in any context,
        thread or task: ``with db.count_queries() as queries: ...``. ``async with`` does
        the same.

        :param bind_key: A bind key or a list of them; all by default.
        :param app: The app; the current one if ``None``.
        :return: Its block has a list that grows while it runs.
        :raises ContextError: without ``app``, outside an app context.
        :raises UnknownBindKeyError: if a key is not configured.
        """
        from .testing.counting import QueryCount

        return QueryCount(self._db, bind_key, app)

    def assert_queries(
        self, count: int, bind_key: BindKeys = "__all__", *, app: Any = None
    ) -> QueryCount:
        """:meth:`count_queries`, which must be so many at the end of the block.

        :raises AssertionError: if they are not; it lists them.
        """
        from .testing.counting import QueryCount

        return QueryCount(self._db, bind_key, app, expected=count)

    @contextmanager
    def isolation(self, app: Flask | Quart | None = None) -> Iterator[None]:
        """Isolate a test: what is done to the databases of an app while this lasts is
        not seen by others, and gone at the end, committed or not.

        Each bind has one connection meanwhile, of the sync driver, which sessions,
        engines, requests, threads and the async API share. Isolations can be nested. See
        :doc:`/testing`.

        :param app: The current one if ``None``.
        :raises IsolationError: if connections are in use; later, for what cannot be
            isolated.
        :raises ContextError: if there is no current app, or it is not one of ``db``.
        """
        from .testing.isolation import isolate

        with isolate(registration_of(self._db, app).engines, "sync"):
            yield

    def dispose(self) -> None:
        """Close the pooled connections of the current app's sync engines."""
        current_registration(self._db).engines.dispose_sync()


class SyncAPI(SyncHelpers):
    """``db.sync``: the sync API, in either framework and in scripts."""

    @property
    def sessionmaker(self) -> orm.sessionmaker[Session]:
        """The factory of sessions that you close yourself, with the same routing:
        ``with db.sync.sessionmaker() as session`` or ``.begin()``. Each belongs to the
        app whose context is active when it first runs a statement.
        """
        return self._sessionmaker
