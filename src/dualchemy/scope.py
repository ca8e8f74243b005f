"""Which sessions belong to the current app context, and when do they end?

A :class:`Scope` hangs on the app-context object itself. Not on ``g``, which Quart's
``copy_current_app_context`` shares, so that one task would close another's session; and
not under ``id(context)``, for ids are used again. A context that never asks for a
session has no scope, and its end costs one look-up.

What is awaited is in :mod:`dualchemy.async_scope`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import orm
from sqlalchemy.util import ScopedRegistry

from .errors import ContextError
from .frameworks import current, current_context, is_pushed

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from .config import Config
    from .engines import Engines
    from .extension import Extension  # only to name the owner of a registration
    from .frameworks.base import AppContext, Framework
    from .loops import LoopEngines

EXTENSION = "dualchemy"
"""The key of :attr:`app.extensions <flask.Flask.extensions>`."""

SLOT = "_dualchemy_scope"
"""The attribute of an app context."""

CONTEXT_ENDED = (
    "The app context in which this code was started has ended, and its session with it:"
    " nobody would close what is opened now. Give a task or a thread that outlives a"
    " request a context of its own, by 'app.add_background_task' (Quart), 'async with"
    " app.app_context():' (Quart) or 'with app.app_context():' (Flask), or a session of"
    " its own, by 'db.aio.sessionmaker()' or 'db.sync.sessionmaker()'."
)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Registration:
    """What ``init_app`` leaves on an app."""

    db: Extension
    framework: Framework
    config: Config
    engines: Engines


class Scope:
    """The sessions of one app context."""

    __slots__ = ("async_session", "db", "engines", "registration", "sync_session")

    def __init__(self, registration: Registration) -> None:
        self.registration: Registration = registration
        self.db: Extension | None = registration.db
        """Whose sessions these are; ``None`` once they end."""
        self.sync_session: orm.Session | None = None
        self.async_session: AsyncSession | None = None
        self.engines: LoopEngines | None = None
        """Of the event loop that the async session was opened on."""

    def has_async_session(self) -> bool:
        """Tell whether there is one of the running event loop."""
        return (
            self.async_session is not None
            and self.engines is not None
            and self.engines.loop is asyncio._get_running_loop()
        )

    def keep(self, session: AsyncSession, context: AppContext) -> LoopEngines:
        """Make a session the async one.

        :return: The engines of the running event loop.
        """
        self.engines = self.registration.engines.aio()
        self.engines.hold(session, context)
        self.async_session = session
        return self.engines

    def forget_async_session(self) -> AsyncSession | None:
        """Return the async session, of which somebody else takes care from now on."""
        session, self.async_session = self.async_session, None
        if session is not None and self.engines is not None:
            self.engines.let_go(session)
        return session

    def release(self) -> None:
        """Close the sync session now, and the async one as soon as its loop can."""
        self.end()
        blocking, self.sync_session = self.sync_session, None
        try:
            if blocking is not None:
                blocking.close()
        finally:
            session, self.async_session = self.async_session, None
            if session is not None and self.engines is not None:
                self.engines.close_later(session)

    def end(self) -> None:
        """Let the sessions open nothing any more."""
        self.db = None
        for session in (self.sync_session, self.async_session):
            # The registry may have been given a session of another class.
            end = getattr(session, "_end", None)
            if end is not None:
                end()


def current_registration(db: Extension) -> Registration:
    """Return what ``db.init_app`` left on the current app.

    :raises ContextError: outside an app context, and in one of an app that ``db`` was
        not initialised on.
    """
    return _registration_in(current_context(), db)


def _registration_in(context: AppContext | None, db: Extension) -> Registration:
    if context is None:
        raise ContextError(
            "Working outside of application context: 'db.session', the engines and"
            " everything that uses them need one. In a script or a test, wrap the code"
            " in 'with app.app_context():' (Flask) or 'async with app.app_context():'"
            " (Quart)."
        )
    return _registration_on(context.app, db)


def _registration_on(app: Any, db: Extension) -> Registration:
    """Return what ``db.init_app`` left on an app.

    :raises ContextError: if it was not called on it.
    """
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


def registration_of(db: Extension, app: Any = None) -> Registration:
    """Return what ``db.init_app`` left on an app, or on the current one if ``None``.

    :raises ContextError: as :func:`current_registration`.
    """
    return current_registration(db) if app is None else _registration_on(app, db)


def loop_of(context: AppContext) -> asyncio.AbstractEventLoop | None:
    """Return the event loop of a context's async session, if it has one."""
    scope: Scope | None = getattr(context, SLOT, None)
    engines = None if scope is None or scope.async_session is None else scope.engines
    return None if engines is None else engines.loop


def existing_scope() -> Scope | None:
    """Return the scope of the current app context, if it has one."""
    return getattr(current_context(), SLOT, None)


def current_scope(db: Extension) -> Scope:
    """Return the scope of the current app context, opened if need be.

    :raises ContextError: as :func:`current_registration`.
    """
    _, context = current()
    scope: Scope | None = getattr(context, SLOT, None)
    if scope is not None and scope.db is db:
        return scope
    registration = _registration_in(context, db)
    if scope is not None or not is_pushed(context):
        raise ContextError(CONTEXT_ENDED)
    scope = Scope(registration)
    setattr(context, SLOT, scope)
    return scope


def close_scope(context: AppContext) -> None:
    """End a context's sessions where nothing can be awaited."""
    scope = getattr(context, SLOT, None)
    if scope is not None:
        delattr(context, SLOT)
        scope.release()


class ContextRegistry(ScopedRegistry[Any]):
    """A registry of SQLAlchemy's that keeps its sessions in scopes."""

    __slots__ = ("db",)

    def __init__(self, db: Extension, factory: Any) -> None:
        super().__init__(factory, current_context)
        self.db: Extension = db


class SyncRegistry(ContextRegistry):
    """Where ``db.sync.session`` finds the session of the current app context."""

    __slots__ = ()

    def __call__(self) -> Any:
        scope = current_scope(self.db)
        session = scope.sync_session
        if session is None:
            session = scope.sync_session = self.createfunc()
            session._use(scope.registration.engines.sync)
        return session

    def has(self) -> bool:
        scope = existing_scope()
        return scope is not None and scope.sync_session is not None

    def set(self, obj: Any) -> None:
        current_scope(self.db).sync_session = obj

    def clear(self) -> None:
        scope = existing_scope()
        if scope is not None:
            scope.sync_session = None
