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

    A cancellation of the caller is put off, to its next await or its own end.

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
        cancel_again()
    return task.result()


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
