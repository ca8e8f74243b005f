"""Which statements does a block of code run?"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

from .. import schema
from ..config import Bind
from ..frameworks import current_context
from ..recording import QueryInfo, location_in
from ..scope import registration_of
from ..urls import API

if TYPE_CHECKING:
    from ..extension import Extension

__all__ = ["CapturedQuery", "Queries"]

_WIDTH = 500


@dataclass(slots=True)
class CapturedQuery(QueryInfo):
    """A statement that ran, and where."""

    bind_key: str | None

    def __str__(self) -> str:
        where = f" on {self.bind_key!r}" if self.bind_key is not None else ""
        sql = " ".join((self.statement or "").split())
        text = f"{_shorten(sql)}{where} [{self.duration * 1000:.1f} ms]"
        given = [each for each in self.parameters or () if each]
        if given:
            shown = given[0] if len(given) == 1 else given
            text += f"\n       with {_shorten(repr(shown))}"
        if self.location != "<unknown>":
            text += f"\n       at {self.location}"
        return text


def _shorten(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."


class Queries(list[CapturedQuery]):
    """Statements in the order in which they ended. ``str`` lists them for a reader."""

    def __str__(self) -> str:
        return self.compared_with(len(self))

    def compared_with(self, expected: int) -> str:
        """List the statements, those past the expected number with a ``+``, and those
        that are missing with a ``-``; and say which came more than once.
        """
        lines: list[str] = []
        first: dict[str | None, int] = {}
        for number, query in enumerate(self, 1):
            seen = first.setdefault(query.statement, number)
            again = f" (as no. {seen})" if seen != number else ""
            sign = "+" if number > expected else " "
            lines.append(f"{sign} {number:>3}.{again} {query}")
        lines += [f"- {n:>3}. (missing)" for n in range(len(self) + 1, expected + 1)]
        for statement, times in Counter(each.statement for each in self).items():
            if times > 1:
                sql = " ".join((statement or "").split())
                lines.append(f"{times} times: {_shorten(sql)}")
        return "\n".join(lines)


@contextmanager
def count_queries(
    db: Extension, bind_key: schema.BindKeys, app: Any
) -> Iterator[Queries]:
    """``db.sync.count_queries``."""
    registration = registration_of(db, app)
    counter = _Counter(schema.bind_keys(registration.engines.binds, bind_key))
    registration.engines.watch(counter.listen)
    try:
        yield counter.queries
    finally:
        registration.engines.unwatch(counter.listen)
        counter.stop()


@contextmanager
def assert_queries(
    db: Extension, count: int, bind_key: schema.BindKeys, app: Any
) -> Iterator[Queries]:
    """``db.sync.assert_queries``."""
    with count_queries(db, bind_key, app) as queries:
        yield queries
    if len(queries) != count:
        were = f"{len(queries)} ran" if queries else "none ran"
        plural = "" if count == 1 else "s"
        raise AssertionError(
            f"{count} statement{plural} expected, {were}.\n"
            f"{queries.compared_with(count)}"
        )


@asynccontextmanager
async def async_count_queries(
    db: Extension, bind_key: schema.BindKeys, app: Any
) -> AsyncIterator[Queries]:
    """``db.aio.count_queries``."""
    with count_queries(db, bind_key, app) as queries:
        yield queries


@asynccontextmanager
async def async_assert_queries(
    db: Extension, count: int, bind_key: schema.BindKeys, app: Any
) -> AsyncIterator[Queries]:
    """``db.aio.assert_queries``."""
    with assert_queries(db, count, bind_key, app) as queries:
        yield queries


class _Counter:
    """The listeners of one block."""

    def __init__(self, keys: list[str | None]) -> None:
        self.queries = Queries()
        self._keys = keys
        self._starts: dict[int, float] = {}
        self._listening: list[tuple[Engine, str, Any]] = []

    def listen(self, engine: Engine, bind: Bind, api: API) -> None:
        if bind.key not in self._keys:
            return

        def start(
            connection: Any,
            cursor: Any,
            sql: Any,
            parameters: Any,
            context: Any,
            _: Any,
        ) -> None:
            self._starts[id(context)] = perf_counter()

        def end(
            connection: Any,
            cursor: Any,
            sql: Any,
            parameters: Any,
            context: Any,
            _: Any,
        ) -> None:
            self._append(bind.key, context, engine.hide_parameters)

        def error(error: ExceptionContext) -> None:
            if error.execution_context is not None:
                context = error.execution_context
                self._append(bind.key, context, engine.hide_parameters)

        for name, listener in (
            ("before_cursor_execute", start),
            ("after_cursor_execute", end),
            ("handle_error", error),
        ):
            event.listen(engine, name, listener)
            self._listening.append((engine, name, listener))

    def stop(self) -> None:
        for engine, name, listener in self._listening:
            event.remove(engine, name, listener)

    def _append(self, key: str | None, execution: Any, hide: bool) -> None:
        start = self._starts.pop(id(execution), None)
        if start is None:  # It ran, and its rows could not be fetched.
            return
        context = current_context()
        app = None if context is None else context.app
        self.queries.append(
            CapturedQuery(
                statement=execution.statement,
                parameters=None if hide else execution.parameters,
                start_time=start,
                end_time=perf_counter(),
                location="<unknown>" if app is None else location_in(app.import_name),
                bind_key=key,
            )
        )
