"""Which async session belongs to the current app context, and how does it end?

The sessions of a context are in its :class:`.Scope`; here is what is done to them where
it can be awaited. What a task is cancelled in the middle of comes to its end all the same.
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
    """End a context's sessions, whatever is cancelled meanwhile."""
    scope: Scope | None = getattr(context, SLOT, None)
    if scope is None:
        return
    scope.end()
    session = scope.forget_async_session()
    blocking, scope.sync_session = scope.sync_session, None
    try:
        try:
            if session is not None and not _close_now(session):
                await close_session(session)
        finally:
            if blocking is not None:
                await _close_in_thread(blocking)
    finally:
        # Not before: other tasks run meanwhile, and are to find that it ended.
        delattr(context, SLOT)


def _close_now(session: AsyncSession) -> bool:
    """Close a session if that waits for nothing.

    :return: Whether it is closed.
    """
    # The registry may have been given a session of another class.
    close = getattr(session, "_close_unused", None)
    return close is not None and close()


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
