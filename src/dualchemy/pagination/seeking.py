"""Which rows come after a given one in an order?

They are cut into *stretches*: one behind the other in the order, each an unbroken part
of it, so that an index on the keys is read from one place on, at any depth, on every
database. One stretch is the rule. Where directions are mixed, or NULLs come last, there
are more, and a page that one does not fill goes on with the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.util import LRUCache

from .cursors import name_of
from .ordering import Key, total_order
from .statements import columns_of
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
    """The rows that meet some conditions, and their order."""

    conditions: tuple[Any, ...] = ()
    fixed: int = 0
    """How many keys, from the first on, are the same in all of these rows."""
    filled: int = -1
    """Which key is NULL in none of them."""
    order: tuple[Any, ...] = ()


class Seeker:
    """A statement that is read from a place in its order on, in either direction.

    :param session: The session that will run it, by which the database is found.
    :param select: The statement.
    :raises sqlalchemy.exc.ArgumentError: see :func:`.total_order`.
    """

    def __init__(self, session: orm.Session, select: sa.Select[Any]) -> None:
        columns = columns_of(select)
        dialect = _dialect(session, select)
        keys = total_order(select, columns, traits_of(dialect).nulls_are_high)
        self.course: Course = _course(tuple(keys), dialect)
        self._width = len(columns)
        self._is_grouped = bool(select._group_by_clauses)
        self._select = select.order_by(None).add_columns(*self.course.labels)

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
        found = Rows([], [], self._width)
        parameters = None if after is None else self.course.parameters(after)
        for stretch in self.course.stretches(after, backwards):
            self._add_rows(
                session, stretch, parameters, limit - len(found.items), found
            )
            if len(found.items) >= limit:
                break
        return found

    def _add_rows(
        self,
        session: orm.Session,
        stretch: _Stretch,
        parameters: dict[str, Any] | None,
        limit: int,
        found: Rows,
    ) -> None:
        narrow = self._select.having if self._is_grouped else self._select.where
        statement = narrow(*stretch.conditions) if stretch.conditions else self._select
        result = session.execute(
            statement.order_by(*stretch.order).limit(limit), parameters
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


class Course:
    """What the keys of an order say of every statement in it, on one database."""

    def __init__(self, keys: tuple[Key, ...], dialect: sa.Dialect) -> None:
        self.keys = keys
        self.name: str = name_of(keys, dialect)
        """The same in each process."""
        self._traits = traits_of(dialect)
        forms = [forms_of(key.expression, dialect) for key in keys]
        self._comparable = [comparable for _, comparable in forms]
        self.labels: list[sa.Label[Any]] = [
            readable.label(f"dualchemy_key_{number}")
            for number, (readable, _) in enumerate(forms)
        ]
        """The keys in the form that is read."""
        self._places = [
            sa.bindparam(f"dualchemy_place_{number}", None, RAW)
            for number in range(len(keys))
        ]
        self._stretches: dict[tuple[bool, ...], list[_Stretch]] = {}

    def parameters(self, values: Values) -> dict[str, Any]:
        """Return the parameters by which the stretches after a place are found."""
        if self._traits.floats_as_text:
            values = tuple(
                repr(value) if isinstance(value, float) else value for value in values
            )
        return {
            place.key: value for place, value in zip(self._places, values, strict=True)
        }

    def stretches(self, after: Values | None, backwards: bool) -> list[_Stretch]:
        """Return the parts of the order after a place, the nearest first."""
        # Of the values, only which of them are NULL makes another statement.
        shape = (backwards, *[value is not None for value in after or ()])
        found = self._stretches.get(shape)
        if found is None:
            keys = [key.reversed() for key in self.keys] if backwards else self.keys
            cut = [_Stretch()] if after is None else self._cut(keys, shape[1:])
            found = self._stretches[shape] = [
                replace(stretch, order=tuple(self._order(keys, stretch)))
                for stretch in cut
            ]
        return found

    def _order(self, keys: Sequence[Key], stretch: _Stretch) -> Iterator[Any]:
        for number, key in enumerate(keys):
            if number < stretch.fixed and self._traits.is_mysql:
                continue  # it would sort rather than follow the index
            column: Any = key.expression
            if not isinstance(column, sa.Column) and not self._traits.is_mysql:
                # PostgreSQL takes an expression for another if their parameters are
                # two. MySQL may read it in another form.
                column = self.labels[number]
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

    def _cut(self, keys: Sequence[Key], filled: Sequence[bool]) -> Iterator[_Stretch]:
        """Yield the parts of the order after a row that has NULL in some keys.

        After ``(1, 2)`` in ascending order: the rows with ``a = 1 AND b > 2``, then
        those with ``a > 1``. Neighbours of one direction make one stretch,
        ``(a, b) > (1, 2)``.
        """
        columns, end = self._comparable, len(keys)
        while end:
            start = end - 1
            while start > 0 and _may_join(keys, filled, start):
                start -= 1
            fixed = [
                self._equal(number) if filled[number] else columns[number].is_(None)
                for number in range(start)
            ]
            if filled[start]:
                beyond = self._beyond(start, end, keys[start].descending)
                yield _Stretch((*fixed, beyond), start, filled=start)
                if keys[start].is_nullable and not keys[start].nulls_first:
                    yield _Stretch((*fixed, columns[start].is_(None)), start + 1)
            elif keys[start].nulls_first:
                rest = columns[start].is_not(None)
                yield _Stretch((*fixed, rest), start, filled=start)
            end = start

    def _beyond(self, start: int, end: int, descending: bool) -> Any:
        if end - start > 1 and self._traits.seeks_by_row:
            row = sa.tuple_(*self._comparable[start:end])
            place = sa.tuple_(*self._places[start:end])
            return row < place if descending else row > place
        column, value = self._comparable[start], self._places[start]
        beyond = column < value if descending else column > value
        if end - start == 1:
            return beyond
        rest = self._beyond(start + 1, end, descending)
        return sa.or_(beyond, sa.and_(self._equal(start), rest))

    def _equal(self, number: int) -> Any:
        return self._comparable[number] == self._places[number]


def _may_join(keys: Sequence[Key], filled: Sequence[bool], number: int) -> bool:
    """Tell whether a key and the one before make one comparison: nothing comes after a
    value but greater ones, or smaller ones.
    """
    before, key = keys[number - 1], keys[number]
    return (
        before.descending == key.descending
        and filled[number - 1]
        and filled[number]
        and (key.nulls_first or not key.is_nullable)
    )


_courses: WeakKeyDictionary[sa.Dialect, LRUCache[tuple[Key, ...], Course]] = (
    WeakKeyDictionary()
)


def _course(keys: tuple[Key, ...], dialect: sa.Dialect) -> Course:
    """Return the course of some keys, which is kept where they are columns of tables:
    other statements have those too, but not another's expressions and aliases.
    """
    if not all(_is_of_table(key.expression) for key in keys):
        return Course(keys, dialect)
    kept = _courses.get(dialect)
    if kept is None:
        # Visitors may be free to choose from many orders.
        kept = _courses.setdefault(dialect, LRUCache(200))
    course = kept.get(keys)
    if course is None:
        course = kept[keys] = Course(keys, dialect)
    return course


def _is_of_table(expression: Any) -> bool:
    return isinstance(expression, sa.Column) and isinstance(expression.table, sa.Table)


def _dialect(session: orm.Session, select: Any) -> sa.Dialect:
    subject = select._propagate_attrs.get("plugin_subject")
    mapper = None if subject is None else subject.mapper
    return session.get_bind(mapper=mapper, clause=select).dialect
