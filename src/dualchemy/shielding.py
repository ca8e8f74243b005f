"""How does something come to its end although the task that awaits it is cancelled?

A commit that was sent, or the close of a session, must not be cut off: the first would
leave nobody knowing what the database holds, the second a connection in a transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

GRACE = 10.0
"""For how many seconds a cancelled task waits for the end, before that is cancelled too.
A server that went away without a word must not hold the task for longer.
"""


async def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine to its end in a task of its own, whatever is cancelled.

    A cancellation of the caller is put off, to its next await or its own end, or to that
    of :class:`PutOff`.

    :raises asyncio.CancelledError: if the caller was cancelled, and the end did not come
        within :data:`GRACE` seconds.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(coroutine)
    cut_off: asyncio.TimerHandle | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if cut_off is None:
                cut_off = loop.call_later(GRACE, task.cancel)
    if cut_off is not None:
        cut_off.cancel()
        caller = asyncio.current_task()
        if caller in _putting_off:
            _putting_off[caller] = True
        else:
            cancel_again()
    return task.result()


_putting_off: dict[asyncio.Task[Any] | None, bool] = {}
"""Tasks within :class:`PutOff`, and whether they were cancelled meanwhile."""


class PutOff:
    """A block to whose end :func:`finish` puts off a cancellation.

    What follows a commit, the telling of it and the release of the connection, is not
    to be cut off in its stead.
    """

    __slots__ = ("_is_inner", "_task")

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._is_inner = self._task in _putting_off
        if not self._is_inner:
            _putting_off[self._task] = False

    def __exit__(self, *_: object) -> None:
        if not self._is_inner and _putting_off.pop(self._task):
            cancel_again()


def cancel_again() -> None:
    """Have the current task's next await, or its end, raise the ``CancelledError`` that
    was caught.

    Raised here, in the teardown of a context, it would not stay what it is: Quart 0.23
    puts it into an exception group.
    """
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()  # asyncio.timeout counts the requests
    task.cancel()
