"""What do the sessions of ``db`` add to SQLAlchemy's?

Each operation goes to the engine of its bind key, and nothing is opened once the app
context of a session has ended. What an async session adds is in
:mod:`dualchemy.async_sessions`; it proxies a session of the same class, so every rule is
written once, on the sync :class:`Session`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.event.base import dispatcher
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.orm import SessionEvents
from sqlalchemy.orm.session import _sessions

from .routing import bind_key, decides_alone, shared_bind_key
from .scope import current_scope, registration_of

if TYPE_CHECKING:
    from .engine_map import EngineMap
    from .extension import Extension  # only to name the owner of a session
    from .frameworks.base import Framework
    from .scope import Registration
    from .signals import Tracker  # only where somebody wants to hear of changes

__all__ = ["ScopedSession", "Session"]

_logger = logging.getLogger("dualchemy")


_NO_ENGINES: Mapping[int, sa.Engine] = MappingProxyType({})


class _Events(dispatcher[orm.Session]):
    """What tells of a session's events, with the listeners of its class at hand.

    SQLAlchemy looks those of an event up when it is first asked for them, in each session
    and by way of an AttributeError. It asks for eight events if a session runs a
    statement and for sixteen if it commits, and that takes a tenth of a light statement.
    """

    def __get__(self, obj: Any, cls: type[Any]) -> Any:
        found = super().__get__(obj, cls)
        if obj is not None:
            # One by one: a loop would take four times as long.
            listeners = found._empty_listeners
            found.do_orm_execute = listeners["do_orm_execute"]
            found.after_transaction_create = listeners["after_transaction_create"]
            found.after_begin = listeners["after_begin"]
            found.after_transaction_end = listeners["after_transaction_end"]
            found.before_attach = listeners["before_attach"]
            found.after_attach = listeners["after_attach"]
            found.transient_to_pending = listeners["transient_to_pending"]
            found.before_flush = listeners["before_flush"]
            found.after_flush = listeners["after_flush"]
            found.after_flush_postexec = listeners["after_flush_postexec"]
            found.pending_to_persistent = listeners["pending_to_persistent"]
            found.before_commit = listeners["before_commit"]
            found.after_commit = listeners["after_commit"]
            found.loaded_as_persistent = listeners["loaded_as_persistent"]
            found.persistent_to_detached = listeners["persistent_to_detached"]
            found.deleted_to_detached = listeners["deleted_to_detached"]
            found.pending_to_transient = listeners["pending_to_transient"]
            found.persistent_to_transient = listeners["persistent_to_transient"]
        return found


class Session(orm.Session):
    """A :class:`sqlalchemy.orm.Session` that sends each operation to the engine of its
    model's or table's bind key.

    To customise ``db.session``, subclass this and pass it as
    ``session_options={"class_": ...}`` to :class:`.SQLAlchemy`.

    :param db: The extension object.
    :param app: The app whose engines to use; the current one's if ``None``.
    :param kwargs: As for SQLAlchemy's ``Session``. With ``bind`` or ``binds`` given,
        or ``bind_mapper`` or ``bind_table`` called, they decide; that is how a session
        joins an external transaction.
    """

    dispatch: dispatcher[orm.Session] = _Events(SessionEvents)

    # What most sessions never change costs nothing to set.
    _db: Extension
    _app: Any = None
    _is_over = False
    _has_binds = False
    _tracker: Tracker | None = None
    _engines: EngineMap[sa.Engine] | None = None
    _by_mapper = _NO_ENGINES
    """Engines by the ids of the mappers that decide alone, which is what most statements
    need to know.
    """

    def __init__(self, db: Extension, *, app: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._db = db
        if app is not None:
            self._app = app

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
        if self.bind is not None or self._has_binds:
            return super().get_bind(mapper, clause=clause, **kwargs)
        if mapper is not None:
            try:
                return self._by_mapper[id(mapper)]
            except KeyError:
                pass
        engines = self._engines
        if engines is None or engines.ended:
            engines = self._find_engines()
            if id(mapper) in engines.by_mapper:
                return engines.by_mapper[id(mapper)]
        engine = engines[bind_key(mapper, clause, self._db._bind_keys)]
        if isinstance(mapper, orm.Mapper) and decides_alone(mapper):
            engines.remember(mapper, engine)
        return engine

    def _add_bind(self, key: Any, bind: Any) -> None:
        # Each of "binds" comes here, and what "bind_mapper" and "bind_table" are given.
        super()._add_bind(key, bind)
        self._has_binds = True

    def _find_engines(self) -> EngineMap[sa.Engine]:
        """Return the engines of the app, and use them from now on."""
        if self._is_over:
            # Where another context is active, that takes the place of the session's,
            # for one statement: the next may belong to yet another.
            current_scope(self._db)
        engines = self._engines_in(registration_of(self._db, self._app))
        if not self._is_over:
            self._use(engines)
        return engines

    def _use(self, engines: EngineMap[sa.Engine]) -> None:
        """Take the engines from here from now on."""
        self._engines, self._by_mapper = engines, engines.by_mapper

    def _engines_in(self, registration: Registration) -> EngineMap[sa.Engine]:
        return registration.engines.sync

    def _end(self) -> None:
        """Let nothing be opened any more, for nobody would close it."""
        self._is_over = True
        self._engines, self._by_mapper = None, _NO_ENGINES

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
        transaction = self._nested_transaction or self._transaction
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
        """Run a statement by a method of SQLAlchemy's."""
        if isinstance(statement, sa.CompoundSelect):
            # For a UNION of models SQLAlchemy gives get_bind neither.
            told = kwargs.get("bind_arguments") or {}
            kwargs["bind_arguments"] = {"clause": statement, **told}
        try:
            return method(statement, *args, **kwargs)
        except (OperationalError, ProgrammingError) as error:
            # A model decides alone, which is fast. Where that was too fast, the
            # database misses a table.
            is_given = self.bind is not None or self._has_binds
            is_ours = not is_given and type(self).get_bind is Session.get_bind
            if is_ours and isinstance(statement, sa.ClauseElement):
                shared_bind_key(statement, error)
            raise

    def _caller_of(
        self, framework: Framework, app: Any, receiver: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Any]:
        """Wrap a coroutine function so that a commit can call it."""
        return framework.run_async(app, receiver)

    def _be_free(self) -> None:
        """Note that nobody uses the session."""

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


_of_parent: list[object] = []
"""Transactions that a forked process keeps, for they are its parent's: the garbage
collector, which would roll them back, is not to find them.
"""


def _leave_transactions_to_parent() -> None:  # pragma: no cover - in a child process
    """In a forked process, have sessions begin anew: their connections are the parent's."""
    for session in tuple(_sessions.values()):
        if isinstance(session, Session) and session._transaction is not None:
            _of_parent.append(session._transaction)
            session._transaction = session._nested_transaction = None
            session._be_free()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_transactions_to_parent)


class CheapCalls:
    """A mixin for SQLAlchemy's session factories, which merge the arguments of the
    factory and of the call. Where the call has none, as when the session of a context is
    made, that is half as long as all the rest.
    """

    kw: dict[str, Any]
    class_: type[Any]
    app: Any = None
    """The app that the sessions belong to; the current one's if ``None``."""
    arguments: dict[str, Any]
    """What the class of sessions needs besides SQLAlchemy's arguments."""

    def configure(self, *, app: Any = None, **new_kw: Any) -> None:
        """Change the arguments of the sessions that are made from now on."""
        super().configure(**new_kw)  # type: ignore[misc]
        if app is not None:
            self.app = app

    def __call__(self, *, app: Any = None, **local_kw: Any) -> Any:
        app = app or self.app
        if app is not None and self.arguments:
            local_kw["app"] = app  # the user's __init__ may want to know
        if not local_kw:
            session = self.class_(**self.kw)
        else:
            session = super().__call__(**local_kw)  # type: ignore[misc]
        if app is not None:
            getattr(session, "sync_session", session)._app = app
        return session


class Sessionmaker(CheapCalls, orm.sessionmaker[Session]):
    """The factory of the sessions of ``db``.

    What the class that SQLAlchemy makes for each factory holds need not be handed to each
    session, which would take a third of the time that making one takes. So the class's
    ``__init__`` is SQLAlchemy's own, unless the user wrote one.
    """

    def __init__(
        self, db: Extension, class_: type[Session], app: Any = None, **options: Any
    ) -> None:
        super().__init__(class_=class_, **options)
        self.app = app
        self.class_._db = db
        self.arguments: dict[str, Any] = {"db": db}
        own: set[Any] = {class_.__init__, super(Session, class_).__init__}
        if own <= {Session.__init__, orm.Session.__init__}:
            setattr(self.class_, "__init__", orm.Session.__init__)  # noqa: B010 - mypy
            self.arguments = {}
        self.kw.update(self.arguments)


class ScopedSession(orm.scoped_session[Session]):
    """The :class:`~sqlalchemy.orm.scoped_session` of the current app context."""

    async def __aenter__(self) -> NoReturn:
        await self().__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        """Present only so that ``async with`` reaches the message of the session."""
