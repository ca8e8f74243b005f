"""Which rows come after a given one in an order?

They are cut into *stretches*: one behind the other in the order, each an unbroken part
of it, so that an index on the keys is read from one place on, at any depth, on every
database. One stretch is the rule. Where directions are mixed, or NULLs come last, there
are more, and a page that one does not fill goes on with the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from .ordering import Key, total_order
from .traits import RAW, forms_of, traits_of

Values = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows in order."""

    items: list[Any]
    """Entities, values of one column, or rows."""
    keyed: list[sa.Row[Any]]
    """The same as rows, with the values of the order's keys after those of each."""
    width: int
    """How many values of a row are not keys."""

    def place(self, number: int) -> Values:
        """Return the values of the keys of one row."""
        return tuple(self.keyed[number][self.width :])


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The rows that meet some conditions."""

    conditions: tuple[Any, ...] = ()
    fixed: int = 0
    """How many keys, from the first on, are the same in all of these rows."""
    filled: int = -1
    """Which key is NULL in none of them."""


class Seeker:
    """A statement that is read from a place in its order on, in either direction.

    :param session: The session that will run it, by which the database is found.
    :param select: The statement.
    :raises sqlalchemy.exc.ArgumentError: see :func:`.total_order`.
    """

    def __init__(self, session: orm.Session, select: sa.Select[Any]) -> None:
        columns = select.column_descriptions
        self.dialect = _dialect(session, select, columns)
        self._traits = traits_of(self.dialect)
        self.keys = total_order(select, columns, self._traits.nulls_are_high)
        self._width = len(columns)
        self._is_grouped = bool(select._group_by_clauses)
        forms = [forms_of(key.expression, self.dialect) for key in self.keys]
        self._comparable = [comparable for _, comparable in forms]
        self._labels = [
            readable.label(f"dualchemy_key_{number}")
            for number, (readable, _) in enumerate(forms)
        ]
        self._select = select.order_by(None).add_columns(*self._labels)

    def read(
        self,
        session: orm.Session,
        after: Values | None,
        limit: int,
        *,
        backwards: bool = False,
    ) -> Rows:
        """Return the rows that come after a place.

        :param after: The values of the keys there; ``None`` for the beginning.
        :param limit: How many at most.
        :param backwards: Read from the end, the last row first: those before the place.
        """
        keys = [key.reversed() for key in self.keys] if backwards else self.keys
        found = Rows([], [], self._width)
        stretches = [_Stretch()] if after is None else self._stretches(keys, after)
        for stretch in stretches:
            self._add_rows(session, keys, stretch, limit - len(found.items), found)
            if len(found.items) >= limit:
                break
        return found

    def _add_rows(
        self,
        session: orm.Session,
        keys: Sequence[Key],
        stretch: _Stretch,
        limit: int,
        found: Rows,
    ) -> None:
        narrow = self._select.having if self._is_grouped else self._select.where
        statement = narrow(*stretch.conditions) if stretch.conditions else self._select
        result = session.execute(
            statement.order_by(*self._order(keys, stretch)).limit(limit)
        )
        if result._unique_filter_state is not None:
            result = result.unique()
        number = self._width
        if number == 1:
            rows = result.all()
            found.items.extend([row[0] for row in rows])
        else:
            frozen = result.freeze()
            rows = frozen().all()
            found.items.extend(frozen().columns(*range(number)).all())
        found.keyed.extend(rows)

    def _order(self, keys: Sequence[Key], stretch: _Stretch) -> Iterator[Any]:
        for number, key in enumerate(keys):
            if number < stretch.fixed and self._traits.is_mysql:
                continue  # it would sort rather than follow the index
            column: Any = key.expression
            if not isinstance(column, sa.Column) and not self._traits.is_mysql:
                # PostgreSQL takes an expression for another if their parameters are
                # two. MySQL may read it in another form.
                column = self._labels[number]
            ordered = column.desc() if key.descending else column.asc()
            default = key.descending == self._traits.nulls_are_high
            if key.is_nullable and key.nulls_first != default:
                if self._traits.has_null_ordering:
                    ordered = (
                        ordered.nulls_first()
                        if key.nulls_first
                        else ordered.nulls_last()
                    )
                elif number != stretch.filled:
                    is_null = sa.case((key.expression.is_(None), 1), else_=0)
                    yield is_null.desc() if key.nulls_first else is_null.asc()
            yield ordered

    def _stretches(self, keys: Sequence[Key], values: Values) -> Iterator[_Stretch]:
        """Yield the parts of the order after a row, the nearest first.

        After ``(1, 2)`` in ascending order: the rows with ``a = 1 AND b > 2``, then
        those with ``a > 1``. Neighbours of one direction make one stretch,
        ``(a, b) > (1, 2)``.
        """
        columns = self._comparable
        end = len(keys)
        while end:
            start = end - 1
            while start > 0 and _may_join(keys, values, start):
                start -= 1
            fixed = [
                self._equal(column, value)
                for column, value in zip(columns[:start], values[:start], strict=True)
            ]
            place = columns[start:end], values[start:end]
            if values[start] is not None:
                beyond = self._beyond(*place, keys[start].descending)
                yield _Stretch((*fixed, beyond), start, filled=start)
                if keys[start].is_nullable and not keys[start].nulls_first:
                    yield _Stretch((*fixed, columns[start].is_(None)), start + 1)
            elif keys[start].nulls_first:
                rest = columns[start].is_not(None)
                yield _Stretch((*fixed, rest), start, filled=start)
            end = start

    def _beyond(
        self, columns: Sequence[Any], values: Sequence[Any], descending: bool
    ) -> Any:
        if len(columns) > 1 and self._traits.seeks_by_row:
            row, place = sa.tuple_(*columns), sa.tuple_(*map(self._bind, values))
            return row < place if descending else row > place
        column, value = columns[0], self._bind(values[0])
        beyond = column < value if descending else column > value
        if len(columns) == 1:
            return beyond
        rest = self._beyond(columns[1:], values[1:], descending)
        return sa.or_(beyond, sa.and_(self._equal(column, values[0]), rest))

    def _equal(self, column: Any, value: Any) -> Any:
        return column.is_(None) if value is None else column == self._bind(value)

    def _bind(self, value: Any) -> Any:
        if isinstance(value, float) and self._traits.floats_as_text:
            value = repr(value)
        return sa.bindparam(None, value, RAW, unique=True)


def _may_join(keys: Sequence[Key], values: Values, number: int) -> bool:
    """Tell whether a key and the one before make one comparison: nothing comes after a
    value but greater ones, or smaller ones.
    """
    before, key = keys[number - 1], keys[number]
    return (
        before.descending == key.descending
        and values[number - 1] is not None
        and values[number] is not None
        and (key.nulls_first or not key.is_nullable)
    )


def _dialect(session: orm.Session, select: Any, columns: Any) -> sa.Dialect:
    entity = next((c.get("entity") for c in columns), None)
    if entity is not None:
        bind = session.get_bind(mapper=sa.inspect(entity).mapper)
    else:
        bind = session.get_bind(clause=select)
    return bind.dialect
