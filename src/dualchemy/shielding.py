"""How does something come to its end although the task that awaits it is cancelled?

A commit that was sent, or the close of a session, must not be cut off: the first would
leave nobody knowing what the database holds, the second a connection in a transaction.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

GRACE = 10.0
"""For how many seconds a cancelled task waits for the end, before that is cancelled too.
A server that went away without a word must not hold the task for longer.
"""


async def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine to its end in a task of its own, whatever is cancelled.

    :raises asyncio.CancelledError: at the end, if the caller was cancelled meanwhile.
    """
    task, cancelled = await _to_the_end(coroutine)
    if cancelled is not None:
        raise cancelled
    return task.result()


async def finish_commit(coroutine: Coroutine[Any, Any, T]) -> T:
    """:func:`finish` a commit. Within :class:`PutOff` a cancellation is raised at the end
    of that, if the commit succeeded.
    """
    task, cancelled = await _to_the_end(coroutine)
    caller = asyncio.current_task()
    if cancelled is not None:
        failed = task.cancelled() or task.exception() is not None
        if failed or caller not in _putting_off:
            raise cancelled
        _putting_off[caller] = cancelled
    return task.result()


async def _to_the_end(
    coroutine: Coroutine[Any, Any, T],
) -> tuple[asyncio.Task[T], CancelledError | None]:
    """Return the task that is done, and the first cancellation of the caller, whose cause
    is what went wrong in the task.
    """
    loop = asyncio.get_running_loop()
    caller = asyncio.current_task()
    task = loop.create_task(coroutine)
    cancelled: CancelledError | None = None
    cut_off: asyncio.TimerHandle | None = None
    if caller is not None and caller.cancelling():
        cut_off = loop.call_later(GRACE, task.cancel)
    while not task.done():
        try:
            await asyncio.wait({task})
        except CancelledError as error:
            cancelled = cancelled or error
            cut_off = cut_off or loop.call_later(GRACE, task.cancel)
    if cut_off is not None:
        cut_off.cancel()
    if cancelled is not None and not task.cancelled():
        cancelled.__cause__ = task.exception()
    return task, cancelled


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
