"""How does something come to its end although the task that awaits it is cancelled?

A commit that was sent, or the close of a session, must not be cut off: the first would
leave nobody knowing what the database holds, the second a connection in a transaction.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")

GRACE = 10.0
"""For how many seconds a cancelled task waits for the end, before that is cancelled too.
A server that went away without a word must not hold the task for longer.
"""


End: TypeAlias = tuple[T, CancelledError | None]
"""The result of what came to its end, and how its caller was cancelled meanwhile."""


async def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine to its end in a task of its own, whatever is cancelled.

    :raises asyncio.CancelledError: at the end, if the caller was cancelled meanwhile; its
        cause is what the coroutine raised.
    """
    result, cancelled = await _to_the_end(_in_a_task(coroutine))
    if cancelled is not None:
        raise cancelled
    return result


async def finish_commit(coroutine: Coroutine[Any, Any, T]) -> T:
    """:func:`finish` a commit. Within :class:`PutOff` a cancellation is raised at the end
    of that, if the commit succeeded.
    """
    return _put_off(*await _to_the_end(_in_a_task(coroutine)))


async def finish_commit_in_place(coroutine: Coroutine[Any, Any, T]) -> T:
    """:func:`finish_commit` in the calling task. With many requests at once, a task for
    each commit costs a sixth of the throughput.

    The coroutine must not use :func:`asyncio.timeout`, nor what does: that cancels the
    task it is in, and the caller's would take that for a cancellation of its own.
    """
    return _put_off(*await _to_the_end(coroutine))


async def _in_a_task(coroutine: Coroutine[Any, Any, T]) -> T:
    return await asyncio.get_running_loop().create_task(coroutine)


def _put_off(result: T, cancelled: CancelledError | None) -> T:
    if cancelled is not None:
        caller = asyncio.current_task()
        if caller not in _putting_off:
            raise cancelled
        _putting_off[caller] = cancelled
    return result


async def _to_the_end(coroutine: Coroutine[Any, Any, T]) -> End[T]:
    held = _Held(coroutine)
    try:
        return await held, held.cancelled
    except (Exception, CancelledError) as error:
        if held.cancelled is None:
            raise
        raise held.cancelled from error


class _Held(Generic[T]):
    """Awaits a coroutine, which goes on when the task that awaits it is cancelled, until
    :data:`GRACE` is over.

    asyncio asks what a task awaits to be cancelled. If that refuses, it raises the
    cancellation in the task when the wait is over: the last one of several. To asyncio
    this is what the task awaits, in the stead of each future of the coroutine.
    """

    _future: asyncio.Future[Any] | None = None
    _asyncio_future_blocking = False  # see asyncio.isfuture
    _message: tuple[Any, ...] | None = None
    """What the first cancellation was given."""
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.cancelled: CancelledError | None = None
        """How the task was cancelled meanwhile."""
        self._coroutine = coroutine
        self._loop = asyncio.get_running_loop()

    def __await__(self) -> Generator[Any, Any, T]:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            self._cut_off_later()
        try:
            while True:
                try:
                    self._future = self._coroutine.send(None)
                except StopIteration as stop:
                    value: T = stop.value
                    return value
                awaited = self._awaited()
                try:
                    yield awaited
                except CancelledError as error:
                    if self._message is not None:
                        error.args = self._message
                    if awaited is None or self._message is not None:
                        self.cancelled = error
                except Exception:  # noqa: BLE001, S110 - it is the future's, and heard there
                    pass
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _awaited(self) -> _Held[T] | None:
        if self._future is None:  # as asyncio.sleep(0) has it
            return None
        self._future._asyncio_future_blocking = False
        self._asyncio_future_blocking = True
        return self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, callback: Callable[..., Any], **options: Any) -> None:
        assert self._future is not None
        self._future.add_done_callback(callback, **options)

    def cancel(self, msg: Any | None = None) -> bool:
        """Refuse."""
        if self._message is None:
            self._message = () if msg is None else (msg,)
        self._cut_off_later()
        return False

    def _cut_off_later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(GRACE, self._cut_off)

    def _cut_off(self) -> None:
        if self._future is not None:
            self._future.cancel()


_putting_off: dict[asyncio.Task[Any] | None, CancelledError | None] = {}
"""Tasks within :class:`PutOff`, and how they were cancelled meanwhile."""


class PutOff:
    """The end of a commit, to which :func:`finish_commit` puts a cancellation off.

    What follows, the telling of it and the release of the connection, is not to be cut
    off in its stead.
    """

    __slots__ = ("_is_inner", "_task")

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._is_inner = self._task in _putting_off
        if not self._is_inner:
            _putting_off[self._task] = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._is_inner:
            return
        cancelled = _putting_off.pop(self._task)
        if cancelled is not None and (kind is None or issubclass(kind, Exception)):
            raise cancelled


def cancel_again(error: CancelledError) -> None:
    """End the teardown of a context with a cancellation that was caught in it.

    Raised there, it would not stay what it is from Quart 0.23 on, which puts it into an
    exception group; so the task's next await, or its end, raises it. Before Python 3.13,
    which Quart 0.23 needs, that could come after the ``asyncio.timeout`` it belongs to.
    """
    if sys.version_info < (3, 13):
        raise error
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()  # asyncio.timeout counts the requests
    task.cancel(*error.args)
