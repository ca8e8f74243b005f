"""What makes an async session of a :class:`.Session`?"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sa_asyncio

from .scope import close_session
from .sessions import Session
from .shielding import PutOff

__all__ = ["AsyncScopedSession", "AsyncSession"]


def _for_one_task(
    method: Callable[..., Any], session_of: Callable[[Any], AsyncSession]
) -> Callable[..., Any]:
    """Guard a method of SQLAlchemy's against a second task."""

    @wraps(method)
    async def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        session = session_of(self)
        sync_session: Any = session.sync_session
        if not sync_session._occupy():
            return await method(self, *args, **kwargs)
        try:
            return await method(self, *args, **kwargs)
        finally:
            if sync_session._vacate():
                await close_session(session)

    return guarded


def _streaming(method: Callable[..., Any]) -> Callable[..., Any]:
    """Have a session serve nobody else while the rows of a stream are fetched."""

    @wraps(method)
    async def stream(self: AsyncSession, *args: Any, **kwargs: Any) -> Any:
        result = await method(self, *args, **kwargs)
        cast("Session", self.sync_session)._note_stream(result)
        return result

    return stream


def _putting_off(method: Callable[..., Any]) -> Callable[..., Any]:
    """Have a method that commits past the session, and nothing else, go on to its end
    where the commit was cancelled.
    """

    @wraps(method)
    async def until_the_end(*args: Any, **kwargs: Any) -> Any:
        with PutOff():
            return await method(*args, **kwargs)

    return until_the_end


class AsyncSession(sa_asyncio.AsyncSession):
    """An :class:`~sqlalchemy.ext.asyncio.AsyncSession` whose operations are routed as
    :class:`.Session` routes them, to the engines of the running event loop.

    :param args: As for SQLAlchemy's ``AsyncSession``.
    :param kwargs: As for SQLAlchemy's ``AsyncSession``; what it does not know goes to
        the proxied :class:`.Session`.
    :raises ConcurrentUseError: from any method but ``close``, while another task awaits
        one.
    """

    sync_session_class: type[orm.Session] = Session

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        session: Any = self.sync_session
        session._proxied_by_async = True

    async def close(self) -> None:
        """Close the session, and give its connections back.

        While another task awaits an operation of the session, it is closed as soon as
        that ends.
        """
        session = cast("Session", self.sync_session)
        if not session._close_when_free() and not self._close_unused():
            await super().close()

    def _close_unused(self) -> bool:
        """Close the session now, if that waits for nothing and so needs no greenlet.

        :return: Whether it is closed.
        """
        session: Any = self.sync_session
        if (
            session._used_by is not None
            or not session._is_unused()
            or type(session).close is not Session.close
        ):
            return False
        session.close()
        return True

    if not TYPE_CHECKING:

        def begin(self) -> AsyncSessionTransaction:
            return AsyncSessionTransaction(self)

        def begin_nested(self) -> AsyncSessionTransaction:
            return AsyncSessionTransaction(self, nested=True)


class AsyncSessionTransaction(sa_asyncio.AsyncSessionTransaction):
    """What ``begin`` and ``begin_nested`` of an :class:`AsyncSession` return."""


def _guard(cls: type, session_of: Callable[[Any], AsyncSession], *names: str) -> None:
    for name in names:
        method = getattr(cls, name)
        if cls is AsyncSessionTransaction and name in {"__aexit__", "commit"}:
            method = _putting_off(method)
        if name in {"stream", "stream_scalars"}:
            method = _streaming(method)
        setattr(cls, name, _for_one_task(method, session_of))


_guard(
    AsyncSession,
    lambda session: session,
    "commit",
    "connection",
    "delete",
    "execute",
    "flush",
    "get",
    "get_one",
    "invalidate",
    "merge",
    "refresh",
    "reset",
    "rollback",
    "run_sync",
    "scalar",
    "scalars",
    "stream",
    "stream_scalars",
)
_guard(
    AsyncSessionTransaction,
    lambda transaction: transaction.session,
    "__aexit__",
    "commit",
    "rollback",
    "start",
)


class AsyncSessionmaker(sa_asyncio.async_sessionmaker[AsyncSession]):
    """As :class:`.sessions.Sessionmaker`."""

    def __call__(self, **local_kw: Any) -> AsyncSession:
        if local_kw:
            return super().__call__(**local_kw)
        return self.class_(**self.kw)


class AsyncScopedSession(sa_asyncio.async_scoped_session[AsyncSession]):
    """The :class:`~sqlalchemy.ext.asyncio.async_scoped_session` of the current app
    context.
    """
