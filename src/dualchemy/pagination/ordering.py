"""In which order does a statement give its rows, and which columns tell them apart?

What ``ORDER BY`` leaves open is settled by primary keys: those of the tables that the
statement selects from, less the tables of which a join finds one row at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.expression import Grouping

from .statements import Columns, sources_of

Expression: TypeAlias = sa.ColumnElement[Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One expression of an order that no two rows share."""

    expression: Expression
    descending: bool
    nulls_first: bool
    is_nullable: bool

    def reversed(self) -> Key:
        """Return the key of the same order, read from its end."""
        return replace(
            self, descending=not self.descending, nulls_first=not self.nulls_first
        )


@dataclass(slots=True)
class _Sources:
    """The tables, aliases and subqueries that a statement selects from."""

    tables: list[sa.FromClause] = field(default_factory=list)
    optional: list[sa.FromClause] = field(default_factory=list)
    """Those whose columns an outer join may fill with NULL."""
    finders: list[tuple[Expression, list[sa.FromClause]]] = field(default_factory=list)
    """Columns that a condition makes equal to something, with the tables of that."""


def total_order(
    select: sa.Select[Any], columns: Columns, nulls_are_high: bool
) -> list[Key]:
    """Return the keys of a statement's order, made total.

    :param columns: The statement's columns.
    :param nulls_are_high: Where the database puts NULL if nothing is said.
    :raises sqlalchemy.exc.ArgumentError: if a key cannot be compared with, or does not
        belong to the rows.
    """
    _refuse_what_pages_would_change(select, columns)
    sources = _sources_of(select, columns)
    keys = [
        _key(clause, select, sources, nulls_are_high)
        for clause in _flatten(select._order_by_clauses)
    ]
    if select._distinct:
        _refuse_foreign_keys(columns, keys)
    descending = keys[-1].descending if keys else False
    for expression in _identity(select, columns, sources, keys):
        if not any(_is_same(expression, key.expression) for key in keys):
            keys.append(
                Key(
                    expression,
                    descending,
                    nulls_first=descending == nulls_are_high,
                    is_nullable=_is_nullable(expression, sources),
                )
            )
    return keys


def _refuse_what_pages_would_change(select: Any, columns: Columns) -> None:
    remedy = "Select from statement.subquery() instead."
    if not (
        select._limit_clause is None
        and select._offset_clause is None
        and select._fetch_clause is None
    ):
        raise ArgumentError(
            "paginate_keyset: the statement has a LIMIT, OFFSET or FETCH, and the page"
            f" sets its own. {remedy}"
        )
    # The second is SQLAlchemy 2.1's postgresql.distinct_on().
    if select._distinct_on or getattr(select, "_pre_columns_clause", None) is not None:
        raise ArgumentError(
            "paginate_keyset: DISTINCT ON takes other rows if a page begins between"
            f" them. {remedy}"
        )
    for column in columns:
        if column.get("entity") is column["expr"]:
            continue
        for element in visitors.iterate(_clause(column["expr"])):
            if isinstance(element, sa.Over):
                raise ArgumentError(
                    "paginate_keyset: a window function sees the rows of its page only."
                    f" {remedy}"
                )


def _clause(expression: Any) -> Any:
    """Return the SQL of a mapped attribute, or of what is SQL already."""
    return getattr(expression, "__clause_element__", lambda: expression)()


def _flatten(clauses: Iterable[Any]) -> Iterator[Any]:
    for clause in clauses:
        if clause.__visit_name__ in {"clauselist", "tuple"}:
            yield from _flatten(clause.clauses)
        else:
            yield clause


_MODIFIERS = {
    operators.asc_op,
    operators.desc_op,
    operators.nulls_first_op,
    operators.nulls_last_op,
}


def _key(
    clause: Any, select: sa.Select[Any], sources: _Sources, nulls_are_high: bool
) -> Key:
    descending, nulls_first = False, None
    while True:
        if isinstance(clause, sa.UnaryExpression) and clause.modifier in _MODIFIERS:
            if clause.modifier is operators.desc_op:
                descending = True
            elif clause.modifier is not operators.asc_op:
                nulls_first = clause.modifier is operators.nulls_first_op
        elif clause.__visit_name__ != "label_reference":
            break
        clause = clause.element
    expression = _resolve(clause, select, sources)
    if nulls_first is None:
        nulls_first = descending == nulls_are_high
    return Key(expression, descending, nulls_first, _is_nullable(expression, sources))


def _resolve(clause: Any, select: sa.Select[Any], sources: _Sources) -> Expression:
    """Return the expression that stands behind a label or a name."""
    while isinstance(clause, sa.Label | Grouping):
        clause = clause.element
    if clause.__visit_name__ == "textual_label_reference":
        return _named(clause.element, select, sources)
    if isinstance(clause, sa.TextClause) or not isinstance(clause, sa.ColumnElement):
        raise ArgumentError(
            f"paginate_keyset: rows cannot be compared by {str(clause)!r} in ORDER BY."
            " Use columns, expressions, or literal_column() for SQL of your own."
        )
    return clause


def _named(name: str, select: sa.Select[Any], sources: _Sources) -> Expression:
    for columns in (select.selected_columns, *[table.c for table in sources.tables]):
        if name in columns:
            return _resolve(columns[name], select, sources)
    raise ArgumentError(
        f"paginate_keyset: order_by({name!r}) names no column of the statement."
    )


def _is_nullable(expression: Expression, sources: _Sources) -> bool:
    if not isinstance(expression, sa.Column):
        return True
    table = expression.table
    if not isinstance(getattr(table, "element", table), sa.Table):
        return True  # of a subquery, which may hold an outer join
    return bool(expression.nullable) or table in sources.optional


def _is_same(one: Expression, other: Expression) -> bool:
    if isinstance(one, sa.Column) and isinstance(other, sa.Column):
        return one.key == other.key and one.table == other.table
    return one is other or bool(one.compare(other))


def _identity(
    select: Any, columns: Columns, sources: _Sources, keys: list[Key]
) -> Iterable[Expression]:
    """Return expressions that tell any two rows of a statement apart."""
    if select._group_by_clauses:
        clauses = _flatten(select._group_by_clauses)
        return [_resolve(clause, select, sources) for clause in clauses]
    if select._distinct:
        return list(_columns_of_rows(columns))
    if len(sources.tables) == 1:
        if any(_is_unique(key, sources) for key in keys):
            return []
        return _primary_key(sources.tables[0])
    identities = {
        number: list(_primary_key(table)) for number, table in enumerate(sources.tables)
    }
    for number in list(identities):
        others = [sources.tables[n] for n in identities if n != number]
        if _is_found_by(identities[number], others, sources):
            del identities[number]
    return [column for identity in identities.values() for column in identity]


def _is_unique(key: Key, sources: _Sources) -> bool:
    column = key.expression
    return (
        isinstance(column, sa.Column)
        and bool(column.unique)
        and not key.is_nullable
        and column.table == sources.tables[0]
    )


def _is_found_by(
    columns: list[Expression], others: list[sa.FromClause], sources: _Sources
) -> bool:
    """Tell whether joins give each column from a column of the other tables."""
    return all(
        any(
            _is_same(column, found) and all(table in others for table in tables)
            for found, tables in sources.finders
        )
        for column in columns
    )


def _primary_key(table: sa.FromClause) -> Iterable[Expression]:
    """Return what tells the rows of a table apart; all columns if nothing else does."""
    if primary_key := list(table.primary_key):
        return primary_key
    entity = table._annotations.get("parententity")
    if entity is not None:
        found = [table.corresponding_column(c) for c in entity.mapper.primary_key]
        if None not in found:
            return [column for column in found if column is not None]
    return table.c


def _columns_of_rows(columns: Columns) -> Iterator[Expression]:
    for column in columns:
        if column.get("entity") is column["expr"]:
            inspected = sa.inspect(column.get("entity"))
            for primary in inspected.mapper.primary_key:
                yield inspected.selectable.corresponding_column(primary)
        else:
            expression = _clause(column["expr"])
            while isinstance(expression, sa.Label):
                expression = expression.element
            yield expression


def _refuse_foreign_keys(columns: Columns, keys: list[Key]) -> None:
    """With DISTINCT, an order by what is not selected would multiply the rows."""
    entities = [
        sa.inspect(column.get("entity")).selectable
        for column in columns
        if column.get("entity") is column["expr"]
    ]
    selected = list(_columns_of_rows(columns))
    for key in keys:
        if any(_is_same(key.expression, each) for each in selected):
            continue
        if not all(
            any(column.table in _leaves(entity) for entity in entities)
            or any(_is_same(column, each) for each in selected)
            for column in _columns_in(key.expression)
        ):
            raise ArgumentError(
                f"paginate_keyset: the statement is DISTINCT and ordered by"
                f" {str(key.expression)!r}, which it does not select."
            )


def _leaves(source: Any) -> list[sa.FromClause]:
    if isinstance(source, sa.Join):
        return [*_leaves(source.left), *_leaves(source.right)]
    return [source]


def _sources_of(select: Any, columns: Columns) -> _Sources:
    sources = _Sources()
    if (only := _only_entity(select, columns)) is not None:
        _add_source(only, sources, is_optional=False)
        return sources
    for source in sources_of(select):
        _add_source(source, sources, is_optional=False)
    if select.whereclause is not None:
        sources.finders += _finders(select.whereclause)
    return sources


def _only_entity(select: Any, columns: Columns) -> sa.FromClause | None:
    """Return the only table of a simple statement, which is quick to see."""
    entities = {column.get("entity") for column in columns}
    if len(entities) != 1 or select._from_obj or select._setup_joins:
        return None
    entity = entities.pop()
    if entity is None:
        return None
    table: sa.FromClause = sa.inspect(entity).selectable
    if select.whereclause is not None:
        for element in visitors.iterate(select.whereclause):
            if getattr(element, "table", table) != table:
                return None
    return table


def _add_source(source: Any, sources: _Sources, *, is_optional: bool) -> None:
    if not isinstance(source, sa.Join):
        sources.tables.append(source)
        if is_optional:
            sources.optional.append(source)
        return
    _add_source(source.left, sources, is_optional=is_optional or source.full)
    first_of_right = len(sources.tables)
    _add_source(
        source.right,
        sources,
        is_optional=is_optional or source.full or source.isouter,
    )
    right = sources.tables[first_of_right:]
    for column, tables in _finders(source.onclause):
        # An outer join keeps rows of its left side that find nothing.
        if not source.full and (not source.isouter or column.table in right):
            sources.finders.append((column, tables))


def _finders(clause: Any) -> Iterator[tuple[Any, list[sa.FromClause]]]:
    """Yield the columns that a condition makes equal to something else in every row,
    and the tables on which that depends.
    """
    while isinstance(clause, Grouping):
        clause = clause.element
    operator = getattr(clause, "operator", None)
    if operator is operators.and_:
        for each in clause.clauses:
            yield from _finders(each)
    elif operator is operators.eq:
        for column, other in (
            (clause.left, clause.right),
            (clause.right, clause.left),
        ):
            if isinstance(column, sa.ColumnClause) and _is_simple(other):
                yield column, [each.table for each in _columns_in(other)]


def _is_simple(expression: Any) -> bool:
    """Tell whether an expression has one value for the same columns."""
    return not any(
        isinstance(element, sa.SelectBase | sa.FunctionElement)
        for element in visitors.iterate(expression)
    )


def _columns_in(expression: Any) -> list[Any]:
    return [
        element
        for element in visitors.iterate(expression)
        if isinstance(element, sa.ColumnClause)
    ]
