"""What do the sessions of ``db`` add to SQLAlchemy's?

Routing, and nothing else. The async session proxies a session of the same class, so
every rule is written once, on the sync :class:`Session`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.util.concurrency import in_greenlet

from .errors import ConcurrentUseError
from .lazy_loading import refuse_lazy_load
from .routing import bind_key, shared_bind_key
from .scope import current_registration
from .signals import Tracker

if TYPE_CHECKING:
    from .engines import EngineMap
    from .extension import Extension  # only to name the owner of a session

__all__ = ["ScopedSession", "Session"]


class Session(orm.Session):
    """A :class:`sqlalchemy.orm.Session` that sends each operation to the engine of its
    model's or table's bind key.

    To customise ``db.session``, subclass this and pass it as
    ``session_options={"class_": ...}`` to :class:`.SQLAlchemy`.

    :param db: The extension object.
    :param kwargs: As for SQLAlchemy's ``Session``. With ``bind`` or ``binds`` given,
        they decide; that is how a session joins an external transaction.
    """

    def __init__(self, db: Extension, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._db = db
        self._routed = not (kwargs.get("bind") or kwargs.get("binds"))
        self._proxied_by_async = False
        self._used_by: asyncio.Task[Any] | None = None
        self._tracker = Tracker()
        self._engines: EngineMap[sa.Engine] | None = None

    def get_bind(
        self,
        mapper: Any | None = None,
        clause: Any | None = None,
        bind: sa.Engine | sa.Connection | None = None,
        **kwargs: Any,
    ) -> sa.Engine | sa.Connection:
        """Return the engine or connection for an operation.

        :raises UnknownBindKeyError: if the app did not configure the bind key.
        """
        if bind is not None:
            return bind
        if not self._routed:
            return super().get_bind(mapper, clause=clause, **kwargs)
        engines = self._engines
        if engines is None:
            engines = self._engines = self._find_engines()
        return engines[bind_key(mapper, clause)]

    if not TYPE_CHECKING:
        # The signatures, with their overloads, are SQLAlchemy's.

        def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
            return self._run(super().execute, statement, args, kwargs)

        def scalar(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
            return self._run(super().scalar, statement, args, kwargs)

        def scalars(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
            return self._run(super().scalars, statement, args, kwargs)

    def _run(
        self,
        method: Callable[..., Any],
        statement: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if self._proxied_by_async:
            if not in_greenlet():
                refuse_lazy_load(statement, kwargs.get("execution_options") or {})
            self._refuse_second_task()
        if isinstance(statement, sa.CompoundSelect):
            # For a UNION of models SQLAlchemy gives get_bind neither.
            told = kwargs.get("bind_arguments") or {}
            kwargs["bind_arguments"] = {"clause": statement, **told}
        try:
            return method(statement, *args, **kwargs)
        except (OperationalError, ProgrammingError) as error:
            # A model decides alone, which is fast. Where that was too fast, the
            # database misses a table.
            is_ours = self._routed and type(self).get_bind is Session.get_bind
            if is_ours and isinstance(statement, sa.ClauseElement):
                shared_bind_key(statement, error)
            raise

    def _refuse_second_task(self) -> None:
        """Raise an error if a task other than the current one awaits this session: the
        driver's would come later, and to either of them.
        """
        user = self._used_by
        if user is not None and user is not asyncio.current_task():
            raise ConcurrentUseError(
                f"This AsyncSession is in use by another task, {user.get_name()!r}, and"
                " serves one at a time. Give each task a session of its own: 'async"
                " with db.aio.sessionmaker() as session'."
            )

    def _find_engines(self) -> EngineMap[sa.Engine]:
        engines = current_registration(self._db).engines
        return engines.aio().sync_map if self._proxied_by_async else engines.sync

    async def __aenter__(self) -> NoReturn:
        raise TypeError(
            "This is a sync session, which Flask's 'db.session' and 'db.sync' give: use"
            " 'with', not 'async with', and no 'await'. For an async session, use"
            " 'db.aio'."
        )

    async def __aexit__(self, *exc: object) -> None:
        """Present only so that ``async with`` reaches the message above."""


class ScopedSession(orm.scoped_session[Session]):
    """The :class:`~sqlalchemy.orm.scoped_session` of the current app context."""

    async def __aenter__(self) -> NoReturn:
        await self().__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        """Present only so that ``async with`` reaches the message of the session."""
