"""Which rows of a statement are these, and how many has it in all?

Plain functions on the sync session. A statement is a ``select`` or a union of them, or a
legacy ``Query`` where that is said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles

from .options import LARGEST, Count

Columns: TypeAlias = list[Any]
"""The columns of a statement, as :func:`columns_of` gives them."""

S = TypeVar("S")

PAGED = (sa.Select, sa.CompoundSelect)
"""What has pages."""

_LARGEST_INTEGER = 2**31 - 1
_EXACT_BELOW = 10_000
"""Rows that are counted sooner than the planner's guess is shown."""


class Total(NamedTuple):
    """How many rows a statement has. An inexact number is a lower bound or a guess."""

    number: int
    is_exact: bool = True


def check_statement(function: str, statement: object) -> None:
    """Refuse what has no pages.

    :raises TypeError: if it is neither a ``select`` nor a union.
    """
    if isinstance(statement, PAGED):
        return
    raise TypeError(
        f"{function}: expected a select() or a union of them, got a"
        f" {type(statement).__name__!r}. For the rows of text() or from_statement(),"
        " select from them: select(statement.columns(...).subquery())."
    )


def between(statement: S, offset: int, limit: int) -> S | None:
    """Narrow a statement, or a ``Query``, to some of its rows; one that has a ``LIMIT``
    or ``OFFSET`` of its own keeps within it.

    :return: The statement, or ``None`` if these rows are beyond all numbers.
    :raises sqlalchemy.exc.ArgumentError: if its own limit is not a plain number.
    """
    own_offset, own_limit = _own_limits(statement)
    if own_limit is not None:
        limit = min(limit, max(own_limit - offset, 0))
    is_plain = getattr(statement, "_offset_clause", None) is None
    if is_plain and offset + limit <= _LARGEST_INTEGER:
        # One new statement, and not two. MySQL takes no sum with an offset of its own.
        sliced: S = statement.slice(offset, offset + limit)  # type: ignore[attr-defined]
        return sliced
    offset += own_offset
    if offset > LARGEST:
        return None
    limit = min(limit, LARGEST - offset)
    narrowed: S = statement.limit(_number(limit))  # type: ignore[attr-defined]
    return narrowed.offset(_number(offset)) if offset else narrowed  # type: ignore[attr-defined]


def _own_limits(statement: Any) -> tuple[int, int | None]:
    if getattr(statement, "_fetch_clause", None) is not None:
        raise ArgumentError(
            "A statement with FETCH cannot be shown in pages. Use limit(), or select"
            " from statement.subquery()."
        )
    offset = _plain(statement._offset_clause)
    return offset or 0, _plain(statement._limit_clause)


def _plain(clause: Any) -> int | None:
    if clause is None:
        return None
    value = getattr(clause, "effective_value", None)
    if isinstance(value, int):
        return value
    raise ArgumentError(
        f"A statement whose LIMIT or OFFSET is an expression, {clause}, cannot be shown"
        " in pages. Give it a number, or select from statement.subquery()."
    )


def _number(value: int) -> Any:
    """Some drivers take the number for an INTEGER, which has 32 bits."""
    if value <= _LARGEST_INTEGER:
        return value
    return sa.bindparam(None, value, sa.BigInteger(), unique=True)


def fetch(session: orm.Session, statement: Any) -> tuple[list[Any], bool]:
    """Run a statement.

    :return: Its rows (entities or values, where it has one column), and whether
        repeated ones among them were merged.
    """
    result = session.execute(statement)
    # Set where joined eager loads multiply the rows. Elsewhere equal rows are separate.
    merges = result._unique_filter_state is not None
    if merges:
        result = result.unique()
    return list(result.scalars() if len(result.keys()) == 1 else result), merges


def columns_of(select: Any) -> Columns:
    """Return the ``column_descriptions`` of a statement. Those of one entity, the rule,
    have the items ``entity`` and ``expr`` only, for the rest takes its time to make.
    """
    first, *others = select._raw_columns
    if isinstance(first, sa.FromClause) and not others:
        inspected = first._annotations.get("parententity")
        if inspected is not None:
            return [{"entity": inspected.entity, "expr": inspected.entity}]
    return list(select.column_descriptions)


def is_joined(statement: Any) -> bool:
    """Tell whether a statement, apart from its eager loads, may repeat an entity."""
    froms = sources_of(statement)
    return len(froms) != 1 or isinstance(froms[0], sa.Join)


def sources_of(statement: Any) -> Sequence[sa.FromClause]:
    """Return what a ``select`` selects from: tables and joins, less its eager loads."""
    # Without entities there is nothing to load; names in the clauses would miss theirs.
    plain = statement.with_only_columns(
        sa.literal_column("1"), maintain_column_froms=True
    )
    froms: Sequence[sa.FromClause]
    froms = plain.order_by(None).group_by(None).get_final_froms()
    return froms


def has_rows_after(session: orm.Session, statement: Any, offset: int) -> bool:
    """Tell whether a statement has a row after the first ``offset``."""
    beyond = between(statement, offset, 1)
    return beyond is not None and _count(session, beyond) > 0


def count_rows(session: orm.Session, statement: Any, how: Count) -> Total:
    """Count the rows of a statement.

    :param how: ``True`` for all, a number to count to, or ``"estimate"``.
    """
    if how is True:
        return Total(_count(session, statement))
    if how != "estimate":
        return _count_to(session, statement, how)
    guess = _estimate(session, statement)
    if guess is None:
        return Total(_count(session, statement))
    if guess >= _EXACT_BELOW:
        return Total(guess, is_exact=False)
    return _count_to(session, statement, _EXACT_BELOW)


def _count_to(session: orm.Session, statement: Any, bound: int) -> Total:
    number = _count(session, between(statement, 0, bound + 1))
    return Total(min(number, bound), is_exact=number <= bound)


def _count(session: orm.Session, statement: Any) -> int:
    count = _over(statement, sa.select(sa.func.count()))
    return int(session.execute(count).scalar_one())


def _over(statement: Any, select: sa.Select[Any]) -> sa.Select[Any]:
    """Select from the rows of a statement. SQLAlchemy loads nothing eagerly there, and
    takes criteria that stand in options from the outer statement.
    """
    criteria = [
        option
        for option in statement._with_options
        if isinstance(option, orm.LoaderCriteriaOption)
    ]
    return (
        select.select_from(statement.order_by(None).subquery())
        .options(*criteria)
        .execution_options(**statement.get_execution_options())
    )


def _estimate(session: orm.Session, statement: Any) -> int | None:
    """Return the planner's figure, or ``None`` from a database that tells none."""
    rows = _over(statement, sa.select(sa.literal_column("1")))
    dialect = session.get_bind(clause=rows).dialect.name
    if dialect not in {"postgresql", "mysql", "mariadb"}:
        return None
    if dialect != "postgresql" and not _is_a_plain_select(statement):
        return None  # the figure is that of the rows before they are grouped
    explained: Any = session.scalar(_Explain(rows), bind_arguments={"clause": rows})
    plan = json.loads(explained) if isinstance(explained, str) else explained
    if dialect == "postgresql":
        return int(plan[0]["Plan"]["Plan Rows"])
    return _product(plan["query_block"])


def _is_a_plain_select(statement: Any) -> bool:
    return not (
        isinstance(statement, sa.CompoundSelect)
        or statement._distinct
        or statement._group_by_clauses
    )


def _product(block: dict[str, Any]) -> int | None:
    """Multiply what MySQL's and MariaDB's plans say of each table."""
    tables = [each.get("table", {}) for each in block.get("nested_loop", [block])]
    rows = 1.0
    for table in tables:
        number = table.get("rows", table.get("rows_examined_per_scan"))
        if number is None:
            return None
        rows *= float(number) * float(table.get("filtered", 100)) / 100
    return int(rows)


class _Explain(sa.Executable, sa.ClauseElement):
    inherit_cache = False

    def __init__(self, statement: sa.Select[Any]) -> None:
        self.statement = statement


@compiles(_Explain, "postgresql")
def _explain_postgresql(element: _Explain, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **options)}"


@compiles(_Explain, "mysql")
@compiles(_Explain, "mariadb")
def _explain_mysql(element: _Explain, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN FORMAT=JSON {compiler.process(element.statement, **options)}"
