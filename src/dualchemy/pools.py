"""Who gets the next connection of a pool whose connections are all in use?

Whoever waits longest. SQLAlchemy's queues wake the one that waits longest, but a
newcomer may take the connection before it runs, and it then waits behind all others. And
where an attempt to connect fails or is cancelled, those that wait are not told that they
may try now. So these pools have a queue of their own; in all else they are SQLAlchemy's.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any, Protocol, TypeVar

from sqlalchemy import pool as sa_pool
from sqlalchemy.exc import TimeoutError as SATimeoutError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import await_only
from sqlalchemy.util.queue import Empty, Full, QueueCommon

from .errors import PoolTimeoutError

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

    No item lies in the queue while somebody waits, so nobody can be overtaken. The lock
    is reentrant, and each step is right also if ``put`` runs within ``get``: the garbage
    collector may give a connection back at any moment.
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
        if self._items:
            with self._lock:
                if self._items:
                    return self._items.pop() if self.use_lifo else self._items.popleft()
        if not block:
            raise Empty
        turn = self.turn()
        with self._lock:
            self._waiting.append(turn)
            if self._items:  # put in the meantime
                self.put(self._items.popleft())
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


class QueuePool(sa_pool.QueuePool):
    """SQLAlchemy's pool, first come, first served."""

    # It logs under this name, at which users look for a pool.
    __module__ = sa_pool.QueuePool.__module__

    _queue_class: type[QueueCommon[ConnectionPoolEntry]] = _ThreadQueue

    options_path = ""
    """The config key of the engine's options, for the error message."""

    def _create_connection(self) -> ConnectionPoolEntry:
        # Not connected yet: it connects when it is checked out, and if that fails it
        # comes back to the queue, and so to the next one that waits.
        return _ConnectionRecord(self, connect=False)

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            return super()._do_get()
        except SATimeoutError:
            raise PoolTimeoutError(
                self.options_path, self.size(), self._max_overflow, self._timeout
            ) from None

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
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
        new = super().recreate()
        new.options_path = self.options_path  # type: ignore[attr-defined]
        return new


class AsyncAdaptedQueuePool(QueuePool, sa_pool.AsyncAdaptedQueuePool):
    """:class:`QueuePool` for the async API."""

    __module__ = sa_pool.QueuePool.__module__

    _queue_class: type[QueueCommon[ConnectionPoolEntry]] = _TaskQueue
