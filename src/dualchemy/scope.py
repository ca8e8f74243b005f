"""Which sessions belong to the current app context, and when do they end?

A :class:`Scope` hangs on the app-context object itself. Not on ``g``, which Quart's
``copy_current_app_context`` shares, so that one task would close another's session; and
not under ``id(context)``, for ids are used again. A context that never asks for a
session has no scope, and its end costs one look-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import orm
from sqlalchemy.util import ScopedRegistry

from .config import Config
from .engines import Engines
from .errors import ContextError
from .frameworks import AppContext, Framework, current_context

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from .extension import Extension  # only to name the owner of a registration

EXTENSION = "dualchemy"
"""The key of :attr:`app.extensions <flask.Flask.extensions>`."""

_SLOT = "_dualchemy_scope"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Registration:
    """What ``init_app`` leaves on an app."""

    db: Extension
    framework: Framework
    config: Config
    engines: Engines


class Scope:
    """The sessions of one app context."""

    __slots__ = ("async_session", "loop", "registration", "sync_session")

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        self.sync_session: orm.Session | None = None
        self.async_session: AsyncSession | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that the async session was opened on."""

    def release(self) -> None:
        """Close the sync session now, and the async one as soon as its loop can."""
        try:
            if self.sync_session is not None:
                self.sync_session.close()
        finally:
            self.sync_session = None
            session, self.async_session = self.async_session, None
            if session is not None and self.loop is not None:
                self.registration.engines.close_later(session, self.loop)

    async def arelease(self) -> None:
        """Close both sessions, whatever is cancelled meanwhile."""
        session, self.async_session = self.async_session, None
        try:
            if session is not None:
                await close_session(session)
        finally:
            blocking, self.sync_session = self.sync_session, None
            if blocking is not None:
                await _finish(asyncio.to_thread(blocking.close))


async def close_session(session: AsyncSession) -> None:
    """Close an async session, also when the task is cancelled meanwhile, once or more.

    Closing is not shielded from the start: a shield costs a task, and most closes are
    not cancelled.
    """
    try:
        await session.close()
    except asyncio.CancelledError:
        await _finish(session.close())
        _cancel_again()


async def _finish(closing: Coroutine[Any, Any, None]) -> None:
    """Await a coroutine to its end, in a task of its own, whatever is cancelled."""
    task = asyncio.create_task(closing)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        _cancel_again()


def _cancel_again() -> None:
    """Have the current task's next await, or its end, raise the ``CancelledError`` that
    was caught.

    Raised here, in the teardown of a context, it would not stay what it is: Quart 0.23
    puts it into an exception group.
    """
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()  # asyncio.timeout counts the requests
    task.cancel()


def current_registration(db: Extension) -> Registration:
    """Return what ``db.init_app`` left on the current app.

    :raises ContextError: outside an app context, and in one of an app that ``db`` was
        not initialised on.
    """
    context = current_context()
    if context is None:
        raise ContextError(
            "Working outside of application context: 'db.session', the engines and"
            " everything that uses them need one. In a script or a test, wrap the code"
            " in 'with app.app_context():' (Flask) or 'async with app.app_context():'"
            " (Quart)."
        )
    return _registration_on(context.app, db)


def _registration_on(app: Any, db: Extension) -> Registration:
    registration: Registration | None = app.extensions.get(EXTENSION)
    if registration is None or registration.db is not db:
        other = (
            ""
            if registration is None
            else f", which has another one: {registration.db!r}"
        )
        raise ContextError(
            f"The current app {app.name!r} is not registered with this 'SQLAlchemy'"
            f" instance{other}. Did you forget to call 'init_app', or did you create"
            " multiple 'SQLAlchemy' instances?"
        )
    return registration


def _existing_scope() -> Scope | None:
    context = current_context()
    return None if context is None else getattr(context, _SLOT, None)


def current_scope(db: Extension) -> Scope:
    """Return the scope of the current app context, opened if need be.

    :raises ContextError: as :func:`current_registration`.
    """
    scope = _existing_scope()
    if scope is not None and scope.registration.db is db:
        return scope
    scope = Scope(current_registration(db))
    setattr(current_context(), _SLOT, scope)
    return scope


def close_scope(context: AppContext) -> None:
    """End a context's sessions where nothing can be awaited."""
    scope = getattr(context, _SLOT, None)
    if scope is not None:
        delattr(context, _SLOT)
        scope.release()


async def aclose_scope(context: AppContext) -> None:
    """End a context's sessions."""
    scope = getattr(context, _SLOT, None)
    if scope is not None:
        delattr(context, _SLOT)
        await scope.arelease()


class _ContextRegistry(ScopedRegistry[Any]):
    """A registry of SQLAlchemy's that keeps its sessions in scopes."""

    __slots__ = ("db",)

    def __init__(self, db: Extension, factory: Any) -> None:
        super().__init__(factory, current_context)
        self.db = db


class SyncRegistry(_ContextRegistry):
    """Where ``db.sync.session`` finds the session of the current app context."""

    __slots__ = ()

    def __call__(self) -> Any:
        scope = current_scope(self.db)
        session = scope.sync_session
        if session is None:
            session = scope.sync_session = self.createfunc()
        return session

    def has(self) -> bool:
        scope = _existing_scope()
        return scope is not None and scope.sync_session is not None

    def set(self, obj: Any) -> None:
        current_scope(self.db).sync_session = obj

    def clear(self) -> None:
        scope = _existing_scope()
        if scope is not None:
            scope.sync_session = None


class AsyncRegistry(_ContextRegistry):
    """Where ``db.aio.session`` finds the session of the current app context and event
    loop.

    Quart has one loop. Under Flask each ``async def`` view runs on a loop of its own,
    and the session ends with that loop.
    """

    __slots__ = ()

    def __call__(self) -> Any:
        scope = current_scope(self.db)
        session = scope.async_session
        if session is None or scope.loop is not asyncio._get_running_loop():
            session = self.createfunc()
            self._keep(scope, session)
        return session

    def _keep(self, scope: Scope, session: Any) -> None:
        registration = scope.registration
        engines = registration.engines.aio()
        scope.async_session = session
        scope.loop = engines.loop
        if not registration.framework.is_async:
            engines.sessions.add(session)

    def has(self) -> bool:
        scope = _existing_scope()
        return (
            scope is not None
            and scope.async_session is not None
            and scope.loop is asyncio._get_running_loop()
        )

    def set(self, obj: Any) -> None:
        self._keep(current_scope(self.db), obj)

    def clear(self) -> None:
        scope = _existing_scope()
        if scope is not None:
            scope.async_session = None
