"""What do the sessions of ``db`` add to SQLAlchemy's?

Each operation goes to the engine of its bind key, an async session serves one task at a
time, and none opens anything once its app context has ended. The async session proxies a
session of the same class, so every rule is written once, on the sync :class:`Session`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.orm.session import _sessions
from sqlalchemy.util.concurrency import in_greenlet

from .engines import keep_for_parent
from .errors import ConcurrentUseError
from .lazy_loading import refuse_lazy_load
from .routing import bind_key, decides_alone, shared_bind_key
from .scope import current_scope, registration_of
from .shielding import PutOff
from .signals import Tracker

if TYPE_CHECKING:
    from .engine_map import EngineMap
    from .extension import Extension  # only to name the owner of a session

__all__ = ["ScopedSession", "Session"]

_logger = logging.getLogger("dualchemy")


_NO_ENGINES: Mapping[int, sa.Engine] = MappingProxyType({})


class Session(orm.Session):
    """A :class:`sqlalchemy.orm.Session` that sends each operation to the engine of its
    model's or table's bind key.

    To customise ``db.session``, subclass this and pass it as
    ``session_options={"class_": ...}`` to :class:`.SQLAlchemy`.

    :param db: The extension object.
    :param app: The app whose engines to use; the current one's if ``None``.
    :param kwargs: As for SQLAlchemy's ``Session``. With ``bind`` or ``binds`` given,
        they decide; that is how a session joins an external transaction.
    """

    # What most sessions never change costs nothing to set.
    _app: Any = None
    _routed = True
    _proxied_by_async = False
    _used_by: asyncio.Task[Any] | None = None
    _stream: tuple[weakref.ref[Any], asyncio.Task[Any] | None] | None = None
    _closes_when_free = False
    _is_over = False
    _tracker: Tracker | None = None
    _engines: EngineMap[sa.Engine] | EndedContext | None = None
    _by_mapper = _NO_ENGINES
    """Engines by the ids of the mappers that decide alone, which is what most statements
    need to know.
    """

    def __init__(
        self,
        db: Extension,
        *,
        app: Any = None,
        bind: Any = None,
        binds: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(bind, binds=binds, **kwargs)
        self._db = db
        if app is not None:
            self._app = app
        if bind or binds:
            self._routed = False

    def get_bind(
        self,
        mapper: Any | None = None,
        clause: Any | None = None,
        bind: sa.Engine | sa.Connection | None = None,
        **kwargs: Any,
    ) -> sa.Engine | sa.Connection:
        """Return the engine or connection for an operation.

        :raises UnknownBindKeyError: if the app did not configure the bind key.
        """
        if bind is not None:
            return bind
        if mapper is not None:
            try:
                return self._by_mapper[id(mapper)]
            except KeyError:
                pass
        if not self._routed:
            return super().get_bind(mapper, clause=clause, **kwargs)
        engines = self._engines
        if engines is None or engines.ended:
            engines = self._engines = self._find_engines()
            self._by_mapper = engines.by_mapper
            if id(mapper) in self._by_mapper:
                return self._by_mapper[id(mapper)]
        engine = engines[bind_key(mapper, clause, self._db._bind_keys)]
        if isinstance(mapper, orm.Mapper) and decides_alone(mapper):
            engines.remember(mapper, engine)
        return engine

    def commit(self) -> None:
        """Commit. On the async API a cancellation that meets the COMMIT is raised at the
        end, when all is told and the connection given back.
        """
        if not self._proxied_by_async:
            super().commit()
            return
        with PutOff():
            super().commit()

    def _is_unused(self) -> bool:
        """Tell whether closing has nothing to do: no transaction, and no object."""
        return self._transaction is None and not self.identity_map and not self._new

    def expunge_all(self) -> None:
        """Remove all objects from the session."""
        # SQLAlchemy first looks up who listens to that, and makes new collections.
        if self.identity_map or self._new or self._deleted:
            super().expunge_all()

    def close(self) -> None:
        """Close the session, and give its connections back.

        One that turns out to be lost is no error: what was not committed is gone in
        either case. It is logged.
        """
        transaction = self.get_nested_transaction() or self.get_transaction()
        try:
            super().close()
        except BaseException as error:  # noqa: BLE001 - raised, or logged
            errors = [error, *_close_the_rest(transaction)]
        else:
            return
        errors.sort(key=lambda each: isinstance(each, Exception))  # cancellations first
        for each in errors:
            if not (isinstance(each, DBAPIError) and each.connection_invalidated):
                raise each
            _logger.warning("A connection was lost before it was given back: %s", each)

    if not TYPE_CHECKING:
        # The signatures, with their overloads, are SQLAlchemy's.

        def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
            return self._run(super().execute, statement, args, kwargs)

        def scalar(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
            return self._run(super().scalar, statement, args, kwargs)

        def scalars(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
            return self._run(super().scalars, statement, args, kwargs)

    def _run(
        self,
        method: Callable[..., Any],
        statement: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if not self._proxied_by_async:
            return self._send(method, statement, args, kwargs)
        if not in_greenlet():
            refuse_lazy_load(statement, kwargs.get("execution_options") or {})
        if not self._occupy():
            return self._send(method, statement, args, kwargs)
        try:  # An awaited attribute comes here past the async session.
            return self._send(method, statement, args, kwargs)
        finally:
            if self._vacate():
                self.close()

    def _send(
        self,
        method: Callable[..., Any],
        statement: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if isinstance(statement, sa.CompoundSelect):
            # For a UNION of models SQLAlchemy gives get_bind neither.
            told = kwargs.get("bind_arguments") or {}
            kwargs["bind_arguments"] = {"clause": statement, **told}
        try:
            return method(statement, *args, **kwargs)
        except (OperationalError, ProgrammingError) as error:
            # A model decides alone, which is fast. Where that was too fast, the
            # database misses a table.
            is_ours = self._routed and type(self).get_bind is Session.get_bind
            if is_ours and isinstance(statement, sa.ClauseElement):
                shared_bind_key(statement, error)
            raise

    def _occupy(self) -> bool:
        """Note that the current task uses this session.

        :return: Whether it did not already, as the receiver of a signal does.
        :raises ConcurrentUseError: if another task uses it: the driver's own error
            would come later, and to either of them.
        """
        task = asyncio.current_task()
        user = self._used_by
        if user is None:
            user = self._streaming_task()
            if user is None or user is task:
                self._used_by = task
                return True
        elif user is task:
            return False
        raise ConcurrentUseError(
            f"This AsyncSession is in use by another task, {user.get_name()!r}, and"
            " serves one at a time. Give each task a session of its own: 'async"
            " with db.aio.sessionmaker() as session'."
        )

    def _note_stream(self, result: Any) -> None:
        """Note that the current task is about to fetch the rows of a result."""
        self._stream = weakref.ref(result._real_result), asyncio.current_task()

    def _streaming_task(self) -> asyncio.Task[Any] | None:
        """Return the task that is not yet done with a stream."""
        if self._stream is None:
            return None
        reference, task = self._stream
        result = reference()
        is_open = result is not None and not result._soft_closed
        if is_open and task is not None and not task.done():
            return task
        self._stream = None
        return None

    def _vacate(self) -> bool:
        """Note that the session is free again.

        :return: Whether it is to be closed now.
        """
        self._used_by = None
        if self._is_over:
            self._let_go_of_engines()
        closes, self._closes_when_free = self._closes_when_free, False
        return closes

    def _close_when_free(self) -> bool:
        """Have a session that another task uses closed when that is done.

        :return: Whether another task uses it.
        """
        user = self._used_by
        if user is None or user is asyncio.current_task():
            return False
        self._closes_when_free = True
        return True

    def _end(self) -> None:
        """Let nothing be opened any more, for nobody would close it, but what another
        task is about to.
        """
        self._is_over = True
        if self._used_by is None:
            self._let_go_of_engines()

    def _let_go_of_engines(self) -> None:
        self._engines = EndedContext(self)
        self._by_mapper = _NO_ENGINES

    def _find_engines(self) -> EngineMap[sa.Engine]:
        engines = registration_of(self._db, self._app).engines
        return engines.aio().sync_map if self._proxied_by_async else engines.sync

    async def __aenter__(self) -> NoReturn:
        raise TypeError(
            "This is a sync session, which Flask's 'db.session' and 'db.sync' give: use"
            " 'with', not 'async with', and no 'await'. For an async session, use"
            " 'db.aio'."
        )

    async def __aexit__(self, *exc: object) -> None:
        """Present only so that ``async with`` reaches the message above."""


def _close_the_rest(
    transaction: orm.SessionTransaction | None,
) -> list[BaseException]:
    """Close what SQLAlchemy leaves open where closing one of several connections fails:
    those to other binds.

    :return: The errors of those that fail as well.
    """
    errors: list[BaseException] = []
    while transaction is not None:
        for _ in transaction._connections:  # each of them may fail
            try:
                transaction.close()
            except BaseException as error:  # noqa: BLE001 - returned
                errors.append(error)
            else:
                break
        transaction = transaction.parent
    return errors


class EndedContext:
    """Stands in for the engines of a session whose app context has ended. Where another
    one is active, that takes its place.
    """

    ended = False

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getitem__(self, key: str | None) -> sa.Engine:
        current_scope(self._session._db)
        return self._session._find_engines()[key]

    def remember(self, mapper: object, engine: sa.Engine) -> None:
        """Do not: the next statement may belong to another context."""


def _leave_transactions_to_parent() -> None:  # pragma: no cover - in a child process
    """In a forked process, have sessions begin anew: their connections are the parent's."""
    for session in tuple(_sessions.values()):
        if isinstance(session, Session) and session._transaction is not None:
            keep_for_parent(session._transaction)
            session._transaction = session._nested_transaction = None
            session._used_by = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_transactions_to_parent)


class Sessionmaker(orm.sessionmaker[Session]):
    """A :class:`~sqlalchemy.orm.sessionmaker` that merges no arguments where it is given
    none, as when each context's session is made.
    """

    def __call__(self, **local_kw: Any) -> Session:
        if local_kw:
            return super().__call__(**local_kw)
        return self.class_(**self.kw)


class ScopedSession(orm.scoped_session[Session]):
    """The :class:`~sqlalchemy.orm.scoped_session` of the current app context."""

    async def __aenter__(self) -> NoReturn:
        await self().__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        """Present only so that ``async with`` reaches the message of the session."""
