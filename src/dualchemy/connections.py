"""What happens to a connection when it is made, taken, used and given back?

Listeners for SQLAlchemy's pool and connection events; :mod:`dualchemy.engines` says which
engine has which.
"""

from __future__ import annotations

import sqlite3
import uuid
import weakref
from collections.abc import Mapping
from time import monotonic
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

_RETURNED = "dualchemy_returned"


def ping_when_idle(engine: Engine, after: float) -> None:
    """Ping a connection that is taken from the pool after it was idle for some time,
    and have a dead one, and all that are as old, replaced.

    A busier one is not pinged: the server answered it a moment ago. So an idle pool
    survives a restart of the database, and a busy one pays nothing. HikariCP calls this
    the alive bypass window. https://github.com/brettwooldridge/HikariCP

    :param after: In seconds.
    """
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
            self.uri = f"file:/{name}?vfs=memdb"
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
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        cursor = super().cursor(*args, **kwargs)
        self._cursors.add(cursor)
        return cursor

    def close(self) -> None:
        for cursor in tuple(self._cursors):
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


def begin_before_savepoints(engine: Engine) -> None:
    """Begin a transaction for a savepoint that has none around it.

    The sqlite3 module begins one before INSERT, UPDATE and DELETE only. A savepoint
    outside of it would be the transaction, and its release a commit.
    https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#enabling-non-legacy-sqlite-transactional-modes-with-the-sqlite3-or-aiosqlite-driver
    """

    @event.listens_for(engine, "savepoint")
    def begin(connection: Connection, name: str) -> None:
        driver: Any = connection.connection.driver_connection
        is_autocommit = driver.isolation_level is None
        if not driver.in_transaction and not is_autocommit:
            connection.exec_driver_sql("BEGIN")


def set_pragmas(engine: Engine, pragmas: Mapping[str, str | int]) -> None:
    @event.listens_for(engine, "connect")
    def set_all(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        try:
            for name, value in pragmas.items():
                cursor.execute(f"PRAGMA {name} = {value}")
        finally:
            cursor.close()
