"""What does an async session add to a :class:`.Session`?

It serves one task at a time, and what it was told to commit comes to its end. The
session that it proxies, which runs inside SQLAlchemy's greenlet bridge, is a
:class:`Proxied` one.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sa_asyncio
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from .async_scope import close_session
from .errors import ConcurrentUseError
from .lazy_loading import refuse_lazy_load
from .sessions import CheapCalls, Session, Sessionmaker
from .shielding import PutOff

if TYPE_CHECKING:
    from .engine_map import EngineMap
    from .frameworks.base import Framework
    from .scope import Registration

__all__ = ["AsyncScopedSession", "AsyncSession"]


class Proxied(Session):
    """A :class:`.Session` that an :class:`AsyncSession` proxies."""

    _used_by: asyncio.Task[Any] | None = None
    _stream: tuple[weakref.ref[Any], asyncio.Task[Any] | None] | None = None
    _closes_when_free = False
    _ends_when_free = False

    def commit(self) -> None:
        """Commit. A cancellation that meets the COMMIT is raised at the end, when all is
        told and the connection given back.
        """
        with PutOff():
            super().commit()

    def _run(
        self,
        method: Callable[..., Any],
        statement: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if not in_greenlet():
            refuse_lazy_load(statement, kwargs.get("execution_options") or {})
        if not self._occupy():
            return super()._run(method, statement, args, kwargs)
        try:  # An awaited attribute comes here past the async session.
            return super()._run(method, statement, args, kwargs)
        finally:
            if self._vacate():
                self.close()

    def _is_unused(self) -> bool:
        """Tell whether closing has nothing to do: nobody uses the session, and it has no
        transaction and no object.
        """
        return (
            self._used_by is None
            and self._transaction is None
            and not self.identity_map
            and not self._new
        )

    def _occupy(self) -> bool:
        """Note that the current task uses this session.

        :return: Whether it did not already, as the receiver of a signal does.
        :raises ConcurrentUseError: if another task uses it: the driver's own error
            would come later, and to either of them.
        """
        task = asyncio.current_task()
        user = self._used_by
        if user is None:
            user = self._streaming_task()
            if user is None or user is task:
                self._used_by = task
                return True
        elif user is task:
            return False
        raise ConcurrentUseError(
            f"This AsyncSession is in use by another task, {user.get_name()!r}, and"
            " serves one at a time. Give each task a session of its own: 'async"
            " with db.aio.sessionmaker() as session'."
        )

    def _note_stream(self, result: Any) -> None:
        """Note that the current task is about to fetch the rows of a result."""
        self._stream = weakref.ref(result._real_result), asyncio.current_task()

    def _streaming_task(self) -> asyncio.Task[Any] | None:
        """Return the task that is not yet done with a stream."""
        if self._stream is None:
            return None
        reference, task = self._stream
        result = reference()
        is_open = result is not None and not result._soft_closed
        if is_open and task is not None and not task.done():
            return task
        self._stream = None
        return None

    def _vacate(self) -> bool:
        """Note that the session is free again.

        :return: Whether it is to be closed now.
        """
        self._used_by = None
        if self._ends_when_free:
            super()._end()
        closes, self._closes_when_free = self._closes_when_free, False
        return closes

    def _be_free(self) -> None:
        self._used_by = None

    def _close_when_free(self) -> bool:
        """Have a session that another task uses closed when that is done.

        :return: Whether another task uses it.
        """
        user = self._used_by
        if user is None or user is asyncio.current_task():
            return False
        self._closes_when_free = True
        return True

    def _end(self) -> None:
        """Let nothing be opened any more, but what another task is about to."""
        if self._used_by is None:
            super()._end()
        else:
            self._ends_when_free = True

    def _engines_in(self, registration: Registration) -> EngineMap[sa.Engine]:
        return registration.engines.aio().sync_map

    def _caller_of(
        self, framework: Framework, app: Any, receiver: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Any]:
        # Commits of the async API run inside the greenlet bridge, which can await.
        return lambda *args, **kwargs: await_only(receiver(*args, **kwargs))


def proxied(cls: Any) -> type[Proxied]:
    """Return the class of sessions of this class that an async one proxies."""
    made: type[Proxied] = cls
    if not issubclass(cls, Proxied):
        if "_proxied_class" not in vars(cls):
            cls._proxied_class = type(cls.__name__, (Proxied, cls), {})
        made = cls._proxied_class
    return made


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
        cast("Proxied", self.sync_session)._note_stream(result)
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

    _sync_class: type[orm.Session] = Proxied

    if not TYPE_CHECKING:
        # Whatever class of ours is given, its sessions are to serve one task at a time.

        def __init_subclass__(cls, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            if "sync_session_class" in vars(cls):
                cls._sync_class = proxied(cls.sync_session_class)
                del cls.sync_session_class

        @property
        def sync_session_class(self) -> type[orm.Session]:
            return self._sync_class

        @sync_session_class.setter
        def sync_session_class(self, cls: type[Session]) -> None:
            self._sync_class = proxied(cls)

    async def close(self) -> None:
        """Close the session, and give its connections back.

        While another task awaits an operation of the session, it is closed as soon as
        that ends.
        """
        session: Any = self.sync_session
        if not session._close_when_free() and not self._close_unused():
            await super().close()

    def _end(self) -> None:
        session: Any = self.sync_session
        session._end()

    def _close_unused(self) -> bool:
        """Close the session now, if that waits for nothing and so needs no greenlet.

        :return: Whether it is closed.
        """
        session: Any = self.sync_session
        if not session._is_unused() or type(session).close is not Session.close:
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


class AsyncSessionmaker(CheapCalls, sa_asyncio.async_sessionmaker[AsyncSession]):
    """The factory of the async sessions of ``db``."""

    def __init__(
        self, sync_sessionmaker: Sessionmaker, app: Any = None, **options: Any
    ) -> None:
        self.app = app
        self.arguments: dict[str, Any] = sync_sessionmaker.arguments
        options |= self.arguments
        namespace = {"_sync_class": proxied(sync_sessionmaker.class_)}
        cls = type("AsyncSession", (AsyncSession,), namespace)
        super().__init__(class_=cls, **options)


class AsyncScopedSession(sa_asyncio.async_scoped_session[AsyncSession]):
    """The :class:`~sqlalchemy.ext.asyncio.async_scoped_session` of the current app
    context.
    """
