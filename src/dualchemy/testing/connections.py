"""How do all connections of a bind come to be one?

An engine whose pool is an :class:`IsolatedPool` connects to the :class:`Real` connection
of its bind: each time with a :class:`Connection`, which is a DBAPI connection of its
own to SQLAlchemy, with transactions of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import pool as sa_pool
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import Pool
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from ..errors import IsolationError
from ..shielding import finish
from .transactions import Stack, Transaction

PATIENCE = 5.0
"""For how many seconds another thread waits for an event loop to do anything at all."""


class Real:
    """A connection that is taken from a pool for as long as an isolation lasts, and the
    one transaction on it. Used by one thread at a time.

    :param pool: An engine's own.
    :param dialect: The engine's own.
    """

    def __init__(self, pool: Pool, dialect: Dialect) -> None:
        self.dialect = dialect
        self.connection: Any = None
        self.autocommits: bool = False
        """Whether each statement would be a transaction without the isolation."""
        self._pool = pool
        self._lock = threading.RLock()
        self._is_running = False
        self._later: deque[Callable[[], Any]] = deque()
        self.stack: Stack = Stack(self._send, dialect.name)

    def open(self, levels: Iterable[dict[Real, Transaction]]) -> None:
        """Connect and begin, unless that is done.

        :param levels: Receive a transaction around all that others begin.
        """
        if self.connection is not None:
            self.stack.check()
            return
        self._taken: Any = self._pool.connect()
        self.connection = self._taken.dbapi_connection
        self.autocommits = self.dialect.detect_autocommit_setting(self.connection)
        try:
            # The drivers of SQLite begin before INSERT, UPDATE and DELETE only, and one
            # that was told to commit by itself never does.
            if self.dialect.name == "sqlite" or self.autocommits:
                self._send("BEGIN")
        except BaseException:
            self.connection = None
            self._taken.invalidate()
            self._taken.close()
            raise
        for level in levels:
            level[self] = self.begin_level()

    def begin_level(self) -> Transaction:
        """Begin a transaction around all that others begin from now on."""
        transaction = Transaction(self.stack)
        self.stack.push(transaction)
        return transaction

    def end(self) -> None:
        """Roll back, and give the connection back to its pool."""
        if self.connection is not None:
            self.run(self._close)

    def _close(self) -> None:
        self.stack.is_over = True
        if self.autocommits:
            with suppress(IsolationError):  # What was done is lost with the connection.
                self.stack.send("ROLLBACK")
        if self.stack.broken is not None:
            self._taken.invalidate()
        self._taken.close()  # which has the others roll back

    def _send(self, sql: str) -> Any:
        is_sqlite = self.dialect.name == "sqlite" and sql != "BEGIN"
        if is_sqlite and not self._taken.driver_connection.in_transaction:
            # A savepoint would begin a transaction, and its release commit.
            raise RuntimeError("SQLite rolled back or committed all")
        cursor = self.connection.cursor()
        try:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None
        finally:
            cursor.close()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what uses the connection, from wherever that may be."""
        with self._lock:
            if self._is_running:  # The garbage collector came upon an open session.
                self._later.append(partial(function, *args))
                return None
            self._is_running = True
            try:
                while self._later:
                    self._later.popleft()()
                return function(*args)
            finally:
                self._is_running = False

    def run_soon(self, function: Callable[[], Any]) -> None:
        """Call what uses the connection before anything else does."""
        self._later.append(function)

    @property
    def is_gone(self) -> bool:
        """Whether the connection was closed by somebody else."""
        return False


class AsyncReal(Real):
    """A connection of an async driver, which lives on an event loop.

    Used by one task at a time. Statements run to their end though a task is cancelled:
    the connection would not survive that with each driver.
    """

    def __init__(
        self, pool: Pool, dialect: Dialect, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(pool, dialect)
        self._loop = loop
        self._turn = asyncio.Lock()
        self._soon: set[asyncio.Task[Any]] = set()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what uses the connection: from the greenlet bridge of its own event loop
        or another one, or where none runs.

        :raises IsolationError: in the way of its event loop, or if that is closed.
        """
        running = asyncio._get_running_loop()
        if running is self._loop and not in_greenlet():
            raise IsolationError(
                "The sync API was used on the event loop of an isolation by 'db.aio',"
                " whose connection needs that loop. Use 'db.aio' here, or call this by"
                " 'asyncio.to_thread'."
            )
        if self.is_gone:
            raise IsolationError(
                "The event loop is closed on which this isolation was first used, and its"
                " connection with it. Use one event loop in an isolation."
            )
        calling = self._in_turn(function, args)
        if running is self._loop:
            return await_only(finish(calling))
        if not self._loop.is_running() and running is None:
            return self._loop.run_until_complete(calling)
        self._check_answer(calling)
        future = asyncio.run_coroutine_threadsafe(calling, self._loop)
        if in_greenlet():
            return await_only(finish(_result(asyncio.wrap_future(future))))
        return future.result()

    def _check_answer(self, calling: Coroutine[Any, Any, Any]) -> None:
        """Refuse to wait for a loop that waits for us."""
        answer = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
        try:
            answer.result(PATIENCE)
        except TimeoutError:
            answer.cancel()
            calling.close()
            raise IsolationError(
                "The event loop of an isolation by 'db.aio' is blocked, and its connection"
                " needs that loop. What blocks it may wait for this thread: have it call"
                " this by 'await asyncio.to_thread(...)'."
            ) from None

    @property
    def is_gone(self) -> bool:
        return self._loop.is_closed()

    def end(self) -> None:
        if not self.is_gone:
            super().end()

    def run_soon(self, function: Callable[[], Any]) -> None:
        if asyncio._get_running_loop() is self._loop:
            task = self._loop.create_task(self._in_turn(function, ()))
            self._soon.add(task)
            task.add_done_callback(self._soon.discard)
        elif self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._in_turn(function, ()), self._loop)

    async def _in_turn(
        self, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> Any:
        async with self._turn:
            return await greenlet_spawn(function, *args)


async def _result(future: asyncio.Future[Any]) -> Any:
    return await future


class Connection:
    """A DBAPI connection that shares a real one."""

    def __init__(self, real: Real) -> None:
        transaction = Transaction(real.stack)
        transaction.autocommits = real.autocommits
        self.__dict__.update(_real=real, _transaction=transaction)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return self._real.run(self._cursor, args, kwargs)

    def _cursor(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._transaction.check_life()
        cursor = self._real.connection.cursor(*args, **kwargs)
        return Cursor(self._real, self._transaction, cursor)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """The short cut of some drivers."""
        cursor = self.cursor()
        cursor.execute(*args, **kwargs)
        return cursor

    def commit(self) -> None:
        self._real.run(self._transaction.commit)

    @property
    def _is_begun(self) -> bool:
        return not self._real.is_gone and self._transaction.is_begun

    def rollback(self) -> None:
        if self._is_begun:
            self._real.run(self._transaction.rollback)

    def close(self) -> None:
        self.rollback()

    def terminate(self) -> None:
        """End where nothing can be awaited: in the garbage collector, say."""
        if self._is_begun:
            self._real.run_soon(self._transaction.rollback)

    __del__ = terminate

    def set_autocommit(self, value: bool) -> None:
        """Have each statement be a transaction, or not."""
        self._transaction.autocommits = bool(value)

    def get_autocommit(self) -> bool:
        return bool(self._transaction.autocommits)

    def set_isolation_level(self, level: object) -> None:
        # The levels themselves are those of the real connection. That is how asyncpg is
        # told of autocommit; psycopg was told before it is given None.
        if level is not None:
            self.set_autocommit(level == "autocommit")

    @property
    def autocommit(self) -> Any:
        is_method = callable(getattr(self._real.connection, "autocommit", None))
        return self.set_autocommit if is_method else self.get_autocommit()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("tpc_"):
            raise IsolationError("A two-phase transaction cannot be isolated.")
        _refuse(name)
        return getattr(self._real.connection, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "autocommit":
            self.set_autocommit(value)
        elif name == "isolation_level":
            # None is how the sqlite3 module is told to leave transactions alone.
            if self._real.dialect.name == "sqlite":
                self.set_autocommit(value is None)
        else:
            raise IsolationError(
                f"{name!r} of a connection cannot be set in an isolation: it would be set"
                " for all that share the real one."
            )


class Cursor:
    """A cursor on the real connection, each of whose statements belongs to a
    transaction.
    """

    def __init__(self, real: Real, transaction: Transaction, cursor: Any) -> None:
        self.__dict__.update(_real=real, _transaction=transaction, _cursor=cursor)

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        return self._real.run(self._run, self._cursor.execute, statement, args, kwargs)

    def executemany(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        run = self._cursor.executemany
        return self._real.run(self._run, run, statement, args, kwargs)

    def _run(
        self,
        send: Callable[..., Any],
        statement: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        transaction = self._transaction
        if not transaction.before(str(statement)):
            return None
        if transaction.has_failed:
            raise self._real.dialect.loaded_dbapi.InternalError(
                "current transaction is aborted, commands ignored until end of"
                " transaction block"
            )
        try:
            found = send(statement, *args, **kwargs)
        except self._real.dialect.loaded_dbapi.Error:
            transaction.after_error()
            raise
        transaction.after_success()
        return found

    def close(self) -> None:
        self._real.run(self._cursor.close)

    async def _async_soft_close(self) -> None:
        """Where SQLAlchemy closes the cursor of an async result outside its bridge."""
        await greenlet_spawn(self.close)

    def __getattr__(self, name: str) -> Any:
        _refuse(name)
        value = getattr(self._cursor, name)
        if not callable(value):
            return value
        return lambda *args, **kwargs: self._real.run(_call, value, args, kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._cursor, name, value)

    def __iter__(self) -> Any:
        return iter(self._cursor)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return function(*args, **kwargs)


def _refuse(name: str) -> None:
    """Refuse what a driver does to transactions past the statements it is given."""
    if name in {"executescript", "transaction"}:
        raise IsolationError(
            f"{name!r} of a driver's connection commits by itself, which an isolation"
            " could not undo. Run statements one by one."
        )


class IsolatedPool(sa_pool.NullPool):
    """Gives connections on the real one of a bind.

    :param find: Finds that, when it is first needed.
    :param dialect: Of the real connection.
    """

    def __init__(self, find: Callable[[], Real], dialect: Dialect) -> None:
        def connect() -> Any:
            return Connection(find())

        super().__init__(connect, dialect=dialect)
        self._find, self._own_dialect = find, dialect

    def recreate(self) -> IsolatedPool:
        return IsolatedPool(self._find, self._own_dialect)

    def status(self) -> str:
        return "Connections of an isolation"
