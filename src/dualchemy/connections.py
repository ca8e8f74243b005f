"""What happens to a connection when it is made, taken, used and given back?

Listeners for SQLAlchemy's pool and connection events; :mod:`dualchemy.engines` says which
engine has which.
"""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import Context
from functools import cache
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from .pools import QueuePool, check_loop
from .shielding import finish, finish_commit, finish_commit_in_place

T = TypeVar("T")

_RETURNED = "dualchemy_returned"


def ping_when_idle(engine: Engine, after: float) -> None:
    """Ping a connection that is taken from the pool after it was idle for some time,
    and have a dead one, and all that are as old, replaced.

    A busier one is not pinged: the server answered it a moment ago. So an idle pool
    survives a restart of the database, and a busy one pays nothing. HikariCP calls this
    the alive bypass window. https://github.com/brettwooldridge/HikariCP

    :param after: In seconds.
    """
    if isinstance(engine.pool, QueuePool):
        engine.pool.ping_after = after
        return
    dialect = engine.dialect

    @event.listens_for(engine, "checkin")
    def note_time(connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED] = monotonic()

    @event.listens_for(engine, "checkout")
    def ping(connection: Any, record: ConnectionPoolEntry, fairy: Any) -> None:
        returned = record.info.pop(_RETURNED, None)
        if returned is None or monotonic() - returned < after:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            if not dialect.is_disconnect(error, connection, None):
                raise
            raise InvalidatePoolError from error


def dispose(engine: Engine) -> None:
    """Close an engine's pooled connections, and those in use when they come back.

    SQLAlchemy's own ``dispose`` leaves the latter to the garbage collector. For an async
    engine, to be called inside the greenlet bridge.
    """
    old = engine.pool
    engine.dispose(close=False)  # The new pool takes over the listeners, but not ours.

    @event.listens_for(old, "checkin")
    def close(connection: Any, record: ConnectionPoolEntry) -> None:
        if connection is not None:
            record.invalidate()

    old.dispose()


def close_all(engine: Engine, records: Iterable[ConnectionPoolEntry]) -> None:
    """Close an engine's pooled connections, and those in use among ``records``, which
    nobody will give back. To be called inside the greenlet bridge.
    """
    dispose(engine)
    for record in tuple(records):
        if record.in_use:
            record.invalidate()


def terminate_all(records: Iterable[ConnectionPoolEntry]) -> None:
    """Close connections of a server that does not answer, without a word to it. To be
    called inside the greenlet bridge.
    """
    for record in tuple(records):
        if record.dbapi_connection is not None:
            record.invalidate()


def keep_on_loop(
    engine: Engine,
    loop: asyncio.AbstractEventLoop,
    records: weakref.WeakSet[ConnectionPoolEntry],
) -> None:
    """Refuse an async engine's connections on any event loop but its own.

    :param records: Receives those that are made.
    """
    dialect = engine.dialect
    connect = dialect.connect

    def connect_here(*args: Any, **kwargs: Any) -> Any:
        check_loop(loop)
        return connect(*args, **kwargs)

    # Not an event: with one listener, SQLAlchemy asks for those of each statement.
    setattr(dialect, "connect", connect_here)  # noqa: B010 - mypy
    if isinstance(engine.pool, QueuePool):
        engine.pool.loop = loop
    else:
        event.listen(engine, "checkout", lambda *_: check_loop(loop), insert=True)

    @event.listens_for(engine, "connect")
    def note(connection: Any, record: ConnectionPoolEntry) -> None:
        records.add(record)


def connect_outside_contexts(engine: Engine) -> None:
    """Make an async engine's connections outside of the current context variables.

    The event loop keeps the context in which a socket was registered. In the app context
    of a request, that would live as long as the connection.
    """
    dialect = engine.dialect
    connect = dialect.connect

    async def connect_or_close(*args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        connecting = greenlet_spawn(connect, *args, **kwargs)
        task = loop.create_task(connecting, context=Context())
        try:
            return await task
        except asyncio.CancelledError:
            # It may have come too late for the connection not to be made.
            if task.done() and not task.cancelled() and task.exception() is None:
                await finish(greenlet_spawn(dialect.do_terminate, task.result()))
            raise

    setattr(  # noqa: B010 - mypy
        dialect,
        "connect",
        lambda *args, **kwargs: await_only(connect_or_close(*args, **kwargs)),
    )


def finish_what_was_sent(engine: Engine) -> None:
    """Let what a connection tells the server come to its end, though the task that
    awaits it is cancelled.

    A commit that is cut off may be done or not, and would be reported as rolled back. A
    second cancellation that cuts off the first, whose word to the server ends the
    statement, leaves that running, and its locks held.
    """
    dialect = engine.dialect
    told: dict[str, Callable[..., Awaitable[Any]]] = {
        "do_commit": finish_commit,
        "do_commit_twophase": finish_commit,
        "do_ping": finish,
        "do_terminate": finish,
    }
    if dialect.driver in {"asyncpg", "aiosqlite"}:
        del told["do_commit"]
        _finish_commits_in_place(engine)
    for name, to_the_end in told.items():
        setattr(dialect, name, _finished(getattr(dialect, name), to_the_end))
    if dialect.driver == "psycopg":
        _finish_cancelling(engine)
        _skip_idle_rollbacks(engine, _is_idle_in_psycopg)
    if dialect.driver == "aiosqlite":
        _skip_idle_rollbacks(engine, _is_idle_in_aiosqlite)


def _finished(
    function: Callable[..., T], to_the_end: Callable[..., Awaitable[T]]
) -> Callable[..., T]:
    def in_a_task(*args: Any, **kwargs: Any) -> T:
        if in_greenlet():
            return await_only(to_the_end(greenlet_spawn(function, *args, **kwargs)))
        return function(*args, **kwargs)  # The garbage collector terminates, too.

    return in_a_task


def _finish_commits_in_place(engine: Engine) -> None:
    """Have a driver finish its commits, of which it awaits futures alone, without a
    timeout of asyncio's.

    It is the driver's own method that does: SQLAlchemy's would need a greenlet within the
    greenlet, which costs more than to send the commit.
    """
    dialect = engine.dialect
    # asyncpg leaves its commits to an object for each transaction.
    finishing = (
        _with_finishing_transactions if dialect.driver == "asyncpg" else _finishing
    )
    of_sqlalchemy = _finished(dialect.do_commit, finish_commit_in_place)

    @event.listens_for(engine, "connect")
    def use_class(connection: Any, record: ConnectionPoolEntry) -> None:
        if not _made_one_of(finishing, record.driver_connection):
            setattr(dialect, "do_commit", of_sqlalchemy)  # noqa: B010 - mypy


_FINISHES = "_dualchemy_finishes"
"""What the classes have whose instances finish their commits."""


def _made_one_of(subclass: Callable[[Any], type], thing: Any) -> bool:
    """Make a thing of the driver's one of a subclass of its class.

    :return: Whether it is one now. A proxy is not, which traces statements, say, and a
        class of the user's need not allow it.
    """
    cls: Any = type(thing)
    if hasattr(cls, _FINISHES):
        return True
    if cls is not thing.__class__:
        return False
    try:
        thing.__class__ = subclass(cls)
    except TypeError:
        return False
    return True


@cache
def _finishing(cls: Any) -> type:
    async def commit(self: Any) -> None:
        await finish_commit_in_place(cls.commit(self))

    return _subclass(cls, commit=commit)


@cache
def _with_finishing_transactions(cls: Any) -> type:
    def transaction(self: Any, **options: Any) -> Any:
        made = cls.transaction(self, **options)
        _made_one_of(_finishing, made)
        return made

    return _subclass(cls, transaction=transaction)


def _subclass(cls: Any, **namespace: Any) -> type:
    """Make a class that an instance of another can be made one of."""
    namespace |= {"__slots__": (), "__module__": cls.__module__, _FINISHES: True}
    made: type = type(cls)(cls.__name__, (cls,), namespace)
    return made


def _skip_idle_rollbacks(engine: Engine, is_idle: Callable[[Any], bool]) -> None:
    """Have a driver not roll back where there is no transaction. It would do nothing,
    but be a place to be cancelled at, and the connection thrown away; and for aiosqlite
    a way to another thread and back, which is most of what a light statement costs.
    """
    dialect = engine.dialect
    rollback = dialect.do_rollback

    def do_rollback(connection: Any) -> None:
        if not is_idle(connection.driver_connection):
            rollback(connection)

    setattr(dialect, "do_rollback", do_rollback)  # noqa: B010 - mypy


def _is_idle_in_psycopg(driver: Any) -> bool:
    return not driver.pgconn.transaction_status  # 0 is IDLE


def _is_idle_in_aiosqlite(driver: Any) -> bool:
    try:
        return not driver.in_transaction
    except ValueError:  # It is closed, and says so when it is rolled back.
        return False


def _finish_cancelling(engine: Engine) -> None:
    connect = _finishing_class().connect

    @event.listens_for(engine, "do_connect")
    def use_class(
        dialect: Any, record: Any, args: list[Any], options: dict[str, Any]
    ) -> None:
        options.setdefault("async_creator_fn", connect)


@cache
def _finishing_class() -> Any:
    from psycopg import AsyncConnection
    from psycopg.errors import QueryCanceled

    class FinishingConnection(AsyncConnection[Any]):
        _is_cancelled = False

        async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109
            self._is_cancelled = True
            await finish(super().cancel_safe(timeout=timeout))

        async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            return await super().wait(self._until_cancelled(gen), *args, **kwargs)

        def _until_cancelled(self, gen: Any) -> Any:
            """Send nothing more: a statement waits behind its BEGIN, and would be sent
            although that was cancelled. SQLAlchemy throws the connection away.
            """
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if self._is_cancelled:
                        self.pgconn.finish()
                        raise QueryCanceled
                    wanted = gen.send(ready)
            except StopIteration as stop:
                return stop.value

    return FinishingConnection


class MemoryDatabase:
    """An in-memory SQLite database that all connections of the process can open.

    It lives as long as one connection to it is open, so this holds one. The ``memdb``
    VFS shares a database whose name begins with a slash, and locks it as a file would
    be locked; SQLite's older shared cache fails at once where that would wait.
    https://www.sqlite.org/src/doc/trunk/src/memdb.c
    """

    def __init__(self) -> None:
        name = f"dualchemy-{uuid.uuid4().hex}"
        if sqlite3.sqlite_version_info >= (3, 36):
            self.uri: str = f"file:/{name}?vfs=memdb"
        else:
            self.uri = f"file:{name}?mode=memory&cache=shared"
        anchor = sqlite3.connect(self.uri, uri=True, check_same_thread=False)
        weakref.finalize(self, anchor.close)

    def serve(self, engine: Engine) -> None:
        """Send every new connection of the engine here."""

        @event.listens_for(engine, "do_connect")
        def connect_here(
            dialect: Any, record: Any, args: list[Any], options: dict[str, Any]
        ) -> None:
            args[0] = self.uri
            options["uri"] = True
            options["check_same_thread"] = False


class SQLiteConnection(sqlite3.Connection):
    """A connection of aiosqlite's that lets go of its locks when it is closed, and is
    closed whatever was cancelled.

    ``close()`` alone leaves them to the last cursor with an unread row, which lives as
    long as the traceback of a :class:`~asyncio.CancelledError`; and a connection whose
    making was cancelled has nobody to close it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursors: list[weakref.ref[sqlite3.Cursor]] = []

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        cursor = super().cursor(*args, **kwargs)
        # Hardly ever more than one; a set that lets go of them takes longer.
        self._cursors = [each for each in self._cursors if each() is not None]
        self._cursors.append(weakref.ref(cursor))
        return cursor

    def close(self) -> None:
        for reference in self._cursors:
            cursor = reference()
            if cursor is not None:
                cursor.close()
        super().close()

    def __del__(self) -> None:
        self.close()


def close_whatever_is_cancelled(engine: Engine) -> None:
    """Make :class:`SQLiteConnection` the default class of aiosqlite's connections, and
    have SQLAlchemy close them in one way.

    Its other way, in a task of its own, is one too many: cancelled, it has the thread
    of the connection stop before that task has its answer, for which it waits forever.
    """
    engine.dialect.has_terminate = False

    @event.listens_for(engine, "do_connect")
    def use_class(
        dialect: Any, record: Any, args: list[Any], options: dict[str, Any]
    ) -> None:
        options.setdefault("factory", SQLiteConnection)


def forget_server_cursors(engine: Engine) -> None:
    """Have psycopg say nothing of a server-side cursor that is deleted while it is open.

    A fetch that was cancelled or not carried on leaves one. The server closes it with its
    transaction, and its owner has no hold of it: SQLAlchemy made it.
    """

    @event.listens_for(engine, "connect")
    def use_class(connection: Any, record: ConnectionPoolEntry) -> None:
        driver: Any = record.driver_connection
        driver.server_cursor_factory = _silent(driver.server_cursor_factory)


@cache
def _silent(cls: type) -> type:
    return type(cls.__name__, (cls,), {"__del__": lambda self: None})


def begin_before_savepoints(engine: Engine) -> None:
    """Begin a transaction for a savepoint that has none around it.

    The sqlite3 module begins one before INSERT, UPDATE and DELETE only. A savepoint
    outside of it would be the transaction, and its release a commit.
    https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#enabling-non-legacy-sqlite-transactional-modes-with-the-sqlite3-or-aiosqlite-driver
    """
    dialect = engine.dialect
    set_savepoint = dialect.do_savepoint

    def do_savepoint(connection: Connection, name: str) -> None:
        driver: Any = connection.connection.driver_connection
        is_autocommit = driver.isolation_level is None
        if not driver.in_transaction and not is_autocommit:
            connection.exec_driver_sql("BEGIN")
        set_savepoint(connection, name)

    # Not an event: with one listener, SQLAlchemy asks for the listeners of every event
    # on every connection that is taken.
    setattr(dialect, "do_savepoint", do_savepoint)  # noqa: B010 - mypy


def set_pragmas(engine: Engine, pragmas: Mapping[str, str | int]) -> None:
    @event.listens_for(engine, "connect")
    def set_all(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        try:
            for name, value in pragmas.items():
                cursor.execute(f"PRAGMA {name} = {value}")
        finally:
            cursor.close()
