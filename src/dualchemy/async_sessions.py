"""What makes an async session of a :class:`.Session`?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sa_asyncio

from .sessions import Session

__all__ = ["AsyncScopedSession", "AsyncSession"]


def _for_one_task(name: str) -> Callable[..., Any]:
    """Guard a method of SQLAlchemy's ``AsyncSession`` against a second task."""
    method = getattr(sa_asyncio.AsyncSession, name)

    @wraps(method)
    async def guarded(self: AsyncSession, *args: Any, **kwargs: Any) -> Any:
        session = cast("Session", self.sync_session)
        task = asyncio.current_task()
        if session._used_by is task:  # from within, as a signal's receiver may
            return await method(self, *args, **kwargs)
        session._refuse_second_task()
        session._used_by = task
        try:
            return await method(self, *args, **kwargs)
        finally:
            session._used_by = None

    return guarded


class AsyncSession(sa_asyncio.AsyncSession):
    """An :class:`~sqlalchemy.ext.asyncio.AsyncSession` whose operations are routed as
    :class:`.Session` routes them, to the engines of the running event loop.

    :param args: As for SQLAlchemy's ``AsyncSession``.
    :param kwargs: As for SQLAlchemy's ``AsyncSession``; what it does not know goes to
        the proxied :class:`.Session`.
    :raises ConcurrentUseError: from any method, while another task awaits one.
    """

    sync_session_class: type[orm.Session] = Session

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cast("Session", self.sync_session)._proxied_by_async = True

    if not TYPE_CHECKING:
        # Not close: it must go through whatever happens.
        commit = _for_one_task("commit")
        connection = _for_one_task("connection")
        delete = _for_one_task("delete")
        execute = _for_one_task("execute")
        flush = _for_one_task("flush")
        get = _for_one_task("get")
        get_one = _for_one_task("get_one")
        merge = _for_one_task("merge")
        refresh = _for_one_task("refresh")
        rollback = _for_one_task("rollback")
        run_sync = _for_one_task("run_sync")
        scalar = _for_one_task("scalar")
        scalars = _for_one_task("scalars")
        stream = _for_one_task("stream")
        stream_scalars = _for_one_task("stream_scalars")


class AsyncScopedSession(sa_asyncio.async_scoped_session[AsyncSession]):
    """The :class:`~sqlalchemy.ext.asyncio.async_scoped_session` of the current app
    context.
    """
