"""What makes an async session of a :class:`.Session`?"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sa_asyncio

from .sessions import Session

__all__ = ["AsyncScopedSession", "AsyncSession"]


class AsyncSession(sa_asyncio.AsyncSession):
    """An :class:`~sqlalchemy.ext.asyncio.AsyncSession` whose operations are routed as
    :class:`.Session` routes them, to the engines of the running event loop.

    :param args: As for SQLAlchemy's ``AsyncSession``.
    :param kwargs: As for SQLAlchemy's ``AsyncSession``; what it does not know goes to
        the proxied :class:`.Session`.
    """

    sync_session_class: type[orm.Session] = Session

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cast("Session", self.sync_session)._proxied_by_async = True


class AsyncScopedSession(sa_asyncio.async_scoped_session[AsyncSession]):
    """The :class:`~sqlalchemy.ext.asyncio.async_scoped_session` of the current app
    context.
    """
