"""How do the sessions of an app context end where that is awaited?

What a task is cancelled in the middle of comes to its end all the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy import orm

from .frameworks import current_context
from .scope import SLOT, ContextRegistry, Scope, current_scope, existing_scope
from .shielding import cancel_again, finish

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from .frameworks.base import AppContext


async def close_session(session: AsyncSession) -> None:
    """Close an async session, also when the task is cancelled meanwhile, once or more.

    Closing is not shielded from the start, unless the task is being cancelled already: a
    shield costs a task, and most closes are not cancelled.
    """
    task = asyncio.current_task()
    closing = session.close()
    if task is not None and task.cancelling():
        closing = finish(closing)
    try:
        await closing
    except asyncio.CancelledError as error:
        cancel_again(error)  # The session has closed the rest.


async def _close_in_thread(session: orm.Session) -> None:
    """Close a sync session, which may wait for the database, whatever is cancelled."""
    try:
        await finish(asyncio.to_thread(session.close))
    except asyncio.CancelledError as error:
        cancel_again(error)


async def aclose_scope(context: AppContext) -> None:
    """End a context's sessions."""
    scope = getattr(context, SLOT, None)
    if scope is not None:
        try:
            if not _release_unused(scope):
                await _release(scope)
        finally:
            # Not before: other tasks run meanwhile, and are to find that it ended.
            delattr(context, SLOT)


def _release_unused(scope: Scope) -> bool:
    """Close the async session if it is the only one, and that waits for nothing.

    :return: Whether it is closed.
    """
    scope.end()
    session = scope.async_session
    # The registry may have been given a session of another class.
    close = getattr(session, "_close_unused", None)
    if scope.sync_session is not None or close is None or not close():
        return False
    scope.forget_async_session()
    return True


async def _release(scope: Scope) -> None:
    """Close both sessions, whatever is cancelled meanwhile."""
    session = scope.forget_async_session()
    try:
        if session is not None:
            await close_session(session)
    finally:
        blocking, scope.sync_session = scope.sync_session, None
        if blocking is not None:
            await _close_in_thread(blocking)


async def aremove(async_session: Any, sync_session: Any) -> None:
    """Close the sessions of scopes that are not app contexts, as far as there are any."""
    try:
        if async_session.registry.has():
            session = async_session.registry()
            async_session.registry.clear()
            await close_session(session)
    finally:
        if sync_session.registry.has():
            session = sync_session.registry()
            sync_session.registry.clear()
            await _close_in_thread(session)


class AsyncRegistry(ContextRegistry):
    """Where ``db.aio.session`` finds the session of the current app context and event
    loop.

    Quart has one loop. Under Flask each ``async def`` view runs on a loop of its own,
    and the session ends with that loop.
    """

    __slots__ = ()

    def __call__(self) -> Any:
        scope = current_scope(self.db)
        session = scope.async_session
        if session is not None and scope.has_async_session():
            return session
        session = self.createfunc()
        engines = scope.keep(session, current_context())
        session.sync_session._use(engines.sync_map)
        return session

    def has(self) -> bool:
        scope = existing_scope()
        return scope is not None and scope.has_async_session()

    def set(self, obj: Any) -> None:
        scope = current_scope(self.db)
        scope.forget_async_session()
        scope.keep(obj, current_context())

    def clear(self) -> None:
        scope = existing_scope()
        if scope is not None:
            scope.forget_async_session()
