"""Which statements does a block of code run?"""

from __future__ import annotations

from collections import Counter
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

__all__ = ["CapturedQuery", "Queries", "QueryCount"]

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


class QueryCount:
    """A block, of ``with`` or ``async with``, whose statements are captured.

    :param db: The extension object.
    :param bind_key: A bind key or a list of them, or ``ALL``.
    :param app: The app; the current one if ``None``.
    :param expected: How many statements there must be at the end.
    """

    def __init__(
        self,
        db: Extension,
        bind_key: schema.BindKeys,
        app: Any,
        expected: int | None = None,
    ) -> None:
        self._engines = registration_of(db, app).engines
        self._keys = schema.bind_keys(self._engines.binds, bind_key)
        self._expected = expected
        self._queries = Queries()
        self._starts: dict[int, float] = {}
        self._listening: list[tuple[Engine, str, Any]] = []

    def __enter__(self) -> Queries:
        self._engines.watch(self._listen)
        return self._queries

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._engines.unwatch(self._listen)
        for engine, name, listener in self._listening:
            event.remove(engine, name, listener)
        expected, queries = self._expected, self._queries
        if kind is None and expected is not None and len(queries) != expected:
            were = f"{len(queries)} ran" if queries else "none ran"
            plural = "" if expected == 1 else "s"
            raise AssertionError(
                f"{expected} statement{plural} expected, {were}.\n"
                f"{queries.compared_with(expected)}"
            )

    async def __aenter__(self) -> Queries:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.__exit__(kind)

    def _listen(self, engine: Engine, bind: Bind, api: API) -> None:
        if bind.key not in self._keys:
            return

        def start(
            connection: Any,
            cursor: Any,
            sql: Any,
            parameters: Any,
            context: Any,
            many: bool,
        ) -> None:
            self._starts[id(context)] = perf_counter()

        def end(*arguments: Any) -> None:
            self._append(bind.key, arguments[4], engine.hide_parameters)

        def error(error: ExceptionContext) -> None:
            if error.execution_context is not None:
                self._append(bind.key, error.execution_context, engine.hide_parameters)

        for name, listener in (
            ("before_cursor_execute", start),
            ("after_cursor_execute", end),
            ("handle_error", error),
        ):
            event.listen(engine, name, listener)
            self._listening.append((engine, name, listener))

    def _append(self, key: str | None, execution: Any, hide: bool) -> None:
        start = self._starts.pop(id(execution), None)
        if start is None:  # It ran, and its rows could not be fetched.
            return
        context = current_context()
        app = None if context is None else context.app
        self._queries.append(
            CapturedQuery(
                statement=execution.statement,
                parameters=None if hide else execution.parameters,
                start_time=start,
                end_time=perf_counter(),
                location="<unknown>" if app is None else location_in(app.import_name),
                bind_key=key,
            )
        )
