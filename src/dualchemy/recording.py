"""Which statements did the current app context run, and from where?

Recorded while ``SQLALCHEMY_RECORD_QUERIES`` is set, in the framework's ``g``, where
debug toolbars look for them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from types import FrameType
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExecutionContext

from .frameworks import current_context

__all__ = ["QueryInfo", "get_recorded_queries"]

_NAME_IN_G = "_sqlalchemy_queries"


@dataclass(slots=True)
class QueryInfo:
    """A statement that ran."""

    statement: str | None
    """The SQL, with placeholders."""

    parameters: Any
    """The parameters as the driver got them: of one execution, or a list of those; None
    if the engine has ``hide_parameters``.
    """

    start_time: float
    """When the statement was sent: seconds of :func:`time.perf_counter`."""

    end_time: float
    """When the answer was there, or the error."""

    location: str
    """The application's code that ran it, as ``file:line (function)``."""

    @property
    def duration(self) -> float:
        """The time between, in seconds."""
        return self.end_time - self.start_time


def get_recorded_queries() -> list[QueryInfo]:
    """Return the statements of the current app context, the oldest first.

    Empty without ``SQLALCHEMY_RECORD_QUERIES``, and outside an app context.
    """
    context = current_context()
    return [] if context is None else context.g.get(_NAME_IN_G, [])


def record(engine: Engine) -> None:
    """Have an engine record its statements.

    Its dialect tells of them. A listener would cost more than the record: with one,
    SQLAlchemy joins the listeners of every event on each connection that is taken.
    """
    dialect = engine.dialect

    # On the first connection SQLAlchemy asks the server for its version, before this.
    @event.listens_for(engine, "connect", once=True)
    def begin(connection: Any, record: Any) -> None:
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            setattr(dialect, name, _recorded(engine, getattr(dialect, name)))


def _recorded(engine: Engine, execute: Callable[..., None]) -> Callable[..., None]:
    def execute_and_record(*args: Any, **kwargs: Any) -> None:
        start = perf_counter()
        try:
            execute(*args, **kwargs)
        finally:
            execution = kwargs.get("context", args[-1])
            if isinstance(execution, ExecutionContext):
                _append(execution, engine.hide_parameters, start)

    return execute_and_record


def _append(execution: Any, hide_parameters: bool, start: float) -> None:
    end = perf_counter()
    context = current_context()
    if context is None:
        return
    queries: list[QueryInfo] | None = context.g.get(_NAME_IN_G)
    if queries is None:
        queries = []
        setattr(context.g, _NAME_IN_G, queries)
    queries.append(
        QueryInfo(
            statement=execution.statement,
            parameters=None if hide_parameters else execution.parameters,
            start_time=start,
            end_time=end,
            location=location_in(context.app.import_name),
        )
    )


def location_in(import_name: str) -> str:
    """Find the innermost frame in the application's top-level package or module."""
    top = import_name.partition(".")[0]
    for frame in _frames():
        name: str = frame.f_globals.get("__name__", "")
        if name == top or name.startswith(f"{top}."):
            code = frame.f_code
            return f"{code.co_filename}:{frame.f_lineno} ({code.co_name})"
    return "<unknown>"


def _frames() -> Iterator[FrameType]:
    """Yield the frames of the call, and those of the greenlets that wait for it: the
    async API runs statements in a greenlet, and the user's code is in its parent.
    """
    import greenlet

    frame: FrameType | None = sys._getframe(1)
    current: greenlet.greenlet | None = greenlet.getcurrent()
    while current is not None:
        while frame is not None:
            yield frame
            frame = frame.f_back
        current = current.parent
        frame = current.gr_frame if current is not None else None
