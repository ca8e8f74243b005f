"""Who gets the next connection of a pool, and is it alive?

Where all are in use, whoever waits longest. SQLAlchemy's queues wake that one too, but a
newcomer may take the connection before it runs, and it then waits behind all others. And
where an attempt to connect fails or is cancelled, those that wait are not told that they
may try now. So these pools have a queue of their own.

One that was idle is pinged first, and replaced if it is dead. The pool does this itself: a
listener would have SQLAlchemy ask for listeners, and call them, each time that a connection
is taken. In all else these are SQLAlchemy's pools.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from sqlalchemy import pool as sa_pool
from sqlalchemy.exc import TimeoutError as SATimeoutError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import await_only
from sqlalchemy.util.queue import Empty, Full, QueueCommon

from .errors import ContextError, PoolTimeoutError

__all__ = ["AsyncAdaptedQueuePool", "QueuePool"]

T = TypeVar("T")


class _Turn(Protocol):
    """One that waits for an item."""

    item: Any

    def come(self) -> None:
        """End the wait; ``item`` is set."""
        ...

    def wait(self, timeout: float | None) -> None:
        """Wait until the turn comes, or for ``timeout`` seconds."""
        ...


class _ThreadTurn:
    __slots__ = ("_lock", "item")

    def __init__(self) -> None:
        self.item: Any = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def come(self) -> None:
        self._lock.release()

    def wait(self, timeout: float | None) -> None:
        self._lock.acquire(timeout=-1 if timeout is None else timeout)


class _TaskTurn:
    """To be made and waited for inside the greenlet bridge."""

    __slots__ = ("_future", "_loop", "item")

    def __init__(self) -> None:
        self.item: Any = None
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def come(self) -> None:
        if asyncio._get_running_loop() is self._loop:
            self._set()
        else:  # The garbage collector may give a connection back in any thread.
            self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def wait(self, timeout: float | None) -> None:
        await_only(asyncio.wait({self._future}, timeout=timeout))


class _Queue(QueueCommon[T]):
    """A queue that hands an item to the one that waits longest, if any does.

    No item lies in the queue while somebody waits, so nobody can be overtaken, and one that
    lies there is taken without the lock. That is reentrant, and each step is right also if
    ``put`` runs within ``get``: the garbage collector may give a connection back at any
    moment.
    """

    turn: type[_Turn]

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._items: deque[T] = deque()
        self._waiting: deque[_Turn] = deque()
        self._lock = threading.RLock()

    def qsize(self) -> int:
        return len(self._items)

    def empty(self) -> bool:
        return not self._items

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self._items)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Add an item; a pool never waits for room, so neither does this.

        :raises sqlalchemy.util.queue.Full: if there is no room.
        """
        with self._lock:
            if self._waiting:
                turn = self._waiting.popleft()
                turn.item = item
                turn.come()
                return
            if self.full():
                raise Full
            self._items.append(item)

    def put_nowait(self, item: T) -> None:
        self.put(item, False)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take an item.

        :param block: Wait for one, for ``timeout`` seconds at most.
        :raises sqlalchemy.util.queue.Empty: if there is none.
        """
        try:
            return self._items.pop() if self.use_lifo else self._items.popleft()
        except IndexError:
            if not block:
                raise Empty from None
        turn = self.turn()
        with self._lock:
            self._waiting.append(turn)
            with suppress(IndexError):
                self.put(self._items.popleft())  # put in the meantime
        try:
            turn.wait(timeout)
        except BaseException:
            self._give_up(turn)
            if turn.item is not None:
                self.put(turn.item)
            raise
        if turn.item is None:
            self._give_up(turn)
        if turn.item is None:
            raise Empty
        item: T = turn.item
        return item

    def get_nowait(self) -> T:
        return self.get(False)

    def is_awaited(self) -> bool:
        """Tell whether somebody waits."""
        return bool(self._waiting)

    def _give_up(self, turn: _Turn) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)


class _ThreadQueue(_Queue[T]):
    turn = _ThreadTurn


class _TaskQueue(_Queue[T]):
    turn = _TaskTurn


class _Record(_ConnectionRecord):
    """A place in a :class:`QueuePool`, and the connection that has it."""

    def __init__(self, pool: QueuePool) -> None:
        # Not connected yet: it connects when it is checked out, and if that fails it
        # comes back to the queue, and so to the next one that waits.
        super().__init__(pool, connect=False)
        self.pool: QueuePool = pool
        self.returned = 0.0
        """When the connection was given back, by :func:`time.monotonic`."""

    def get_connection(self) -> Any:
        after = self.pool.ping_after
        if after is not None and time.monotonic() - self.returned >= after:
            self._ping()
        return super().get_connection()

    def _ping(self) -> None:
        if self._is_hard_or_soft_invalidated():
            return  # it is replaced in any case
        pool, connection = self.pool, self.dbapi_connection
        dialect: Any = pool._dialect
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            if not dialect.is_disconnect(error, connection, None):
                raise
            pool.logger.info("Connection %r is dead, and all as old", connection)
            self.invalidate(error)
            pool._invalidate_time = time.time()


class QueuePool(sa_pool.QueuePool):
    """SQLAlchemy's pool, first come, first served."""

    # It logs under this name, at which users look for a pool.
    __module__ = sa_pool.QueuePool.__module__

    _queue_class: type[QueueCommon[ConnectionPoolEntry]] = _ThreadQueue

    options_path: str = ""
    """The config key of the engine's options, for the error message."""

    ping_after: float | None = None
    """After how many seconds of idleness a connection is pinged when it is taken, and
    replaced if it is dead, with all that are as old; ``None`` for never.
    """

    loop: asyncio.AbstractEventLoop | None = None
    """The event loop whose connections these are, if they are one's."""

    def _create_connection(self) -> ConnectionPoolEntry:
        return _Record(self)

    def _do_get(self) -> ConnectionPoolEntry:
        if self.loop is not None:
            check_loop(self.loop)
        try:
            return super()._do_get()
        except SATimeoutError:
            raise PoolTimeoutError(
                self.options_path, self.size(), self._max_overflow, self._timeout
            ) from None

    def _do_return_conn(self, record: Any) -> None:
        record.returned = time.monotonic()
        try:
            self._pool.put(record, False)
        except Full:
            try:
                record.close()
            finally:
                self._dec_overflow()
                # Somebody may have begun to wait while it was closed.
                queue: Any = self._pool
                if queue.is_awaited() and self._inc_overflow():
                    queue.put(record)

    def recreate(self) -> sa_pool.QueuePool:
        new: Any = super().recreate()
        new.options_path = self.options_path
        new.ping_after, new.loop = self.ping_after, self.loop
        return new  # type: ignore[no-any-return]


class AsyncAdaptedQueuePool(QueuePool, sa_pool.AsyncAdaptedQueuePool):
    """:class:`QueuePool` for the async API."""

    __module__ = sa_pool.QueuePool.__module__

    _queue_class: type[QueueCommon[ConnectionPoolEntry]] = _TaskQueue


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Refuse to connect, or to take a connection, on any event loop but this one.

    :raises ContextError: if another one runs, or none.
    """
    if asyncio._get_running_loop() is not loop:
        raise ContextError(
            "An async engine was used on an event loop that is not its own. Take"
            " 'db.aio.engine' anew on each loop, and do not keep a session for another"
            " one."
        )
