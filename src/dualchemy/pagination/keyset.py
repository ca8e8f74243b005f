"""Which rows come before and after these, at any depth?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, TypedDict, TypeVar

import sqlalchemy as sa
from sqlalchemy import orm

from ..frameworks import abort, current_request
from .cursors import CursorError, Cursors, Place
from .links import Linked
from .options import check_keywords, read_per_page
from .seeking import Rows, Seeker, Values

T = TypeVar("T")


class KeysetOptions(TypedDict, total=False):
    """The keyword arguments of ``paginate_keyset``."""

    per_page: int | None
    """The number of items on a page."""
    cursor: str | None
    """Where the page begins: a cursor of another page, or ``""``."""
    max_per_page: int | None
    """The limit of ``per_page``, or ``None``."""
    error_out: bool
    """Whether a bad cursor or ``per_page`` is an error."""


class KeysetPagination(Linked, Generic[T]):
    """A page of rows, and the cursors of those before and after it.

    Made by ``db.paginate_keyset``, not by hand.
    """

    def __init__(
        self,
        seeker: Seeker,
        session: orm.Session,
        *,
        per_page: int | None = None,
        cursor: str | None = None,
        max_per_page: int | None = 100,
        error_out: bool = True,
    ) -> None:
        self._cursors = Cursors(seeker.course.keys, seeker.course.name)
        self.per_page: int = read_per_page(per_page, max_per_page, error_out)
        """The largest number of items on a page."""
        place = _read_place(self._cursors, cursor, error_out)
        rows = seeker.read(
            session, place.values, self.per_page + 1, backwards=place.backwards
        )
        # The row beyond shows that there are more. On the other side there is at least
        # the row that the cursor was made of.
        beyond = len(rows.items) > self.per_page
        came_from = place.values is not None
        step = -1 if place.backwards else 1
        self.items: list[T] = rows.items[: self.per_page][::step]
        """The items on this page; iterating over the page gives the same."""
        self._first: Values | None = None
        self._last: Values | None = None
        if self.items:
            self._first, self._last = rows.place(0), rows.place(len(self.items) - 1)
        if place.backwards:
            self._first, self._last = self._last, self._first
        self.has_next: bool = came_from if place.backwards else beyond
        """Whether there are items after this page."""
        self.has_prev: bool = beyond if place.backwards else came_from
        """Whether there are items before this page."""

    @property
    def next_cursor(self) -> str | None:
        """The cursor of the page after this one, or ``None``.

        :raises TypeError: if the order has a value that no cursor can hold.
        """
        if not self.has_next:
            return None
        # With no rows before the place that this page was read back from, the next page
        # is the first.
        return self._cursors.dump(Place(self._last))

    @property
    def prev_cursor(self) -> str | None:
        """The cursor of the page before this one, or ``None``.

        :raises TypeError: if the order has a value that no cursor can hold.
        """
        if not self.has_prev:
            return None
        return self._cursors.dump(Place(self._first, backwards=True))

    @property
    def last_cursor(self) -> str:
        """The cursor of the last page, read from the end."""
        return self._cursors.dump(Place(backwards=True))

    def _arguments_of(self) -> dict[str, dict[str, object]]:
        cursors = {
            "first": "",
            "prev": self.prev_cursor,
            "next": self.next_cursor,
            "last": self.last_cursor,
        }
        return {
            relation: {"cursor": cursor}
            for relation, cursor in cursors.items()
            if cursor is not None
        }

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self.items)} items>"


def keyset_page(
    session: orm.Session, select: Any, options: KeysetOptions
) -> KeysetPagination[Any]:
    """Make the page of a ``select``.

    :raises TypeError: if the statement is none, or an option does not exist.
    """
    check_keywords("paginate_keyset", options, KeysetOptions)
    _check_select("paginate_keyset", select)
    return KeysetPagination(Seeker(session, select), session, **options)


def _check_select(function: str, statement: object) -> None:
    if not isinstance(statement, sa.Select):
        raise TypeError(
            f"{function}: expected a select(), got a {type(statement).__name__!r}."
            " Select from a union with select(statement.subquery())."
        )


def _read_place(cursors: Cursors, cursor: str | None, error_out: bool) -> Place:
    if cursor is None:
        request = current_request()
        cursor = "" if request is None else request.args.get("cursor", "")
    elif not isinstance(cursor, str):
        raise TypeError(f"cursor: expected a str, got {cursor!r}.")
    try:
        return cursors.load(cursor)
    except CursorError as error:
        if error_out:
            abort(400, str(error))
        return Place()


class Walk(Generic[T]):
    """A statement that is read to its end, some rows at a time.

    :param select: The statement.
    :param per_page: How many rows to read at a time.
    :raises TypeError: if the statement is none, or ``per_page`` not an int.
    :raises ValueError: if ``per_page`` is not positive.
    """

    def __init__(self, select: Any, per_page: int) -> None:
        _check_select("pages", select)
        if not isinstance(per_page, int):
            raise TypeError(f"per_page: expected an int, got {per_page!r}.")
        if per_page < 1:
            raise ValueError(f"per_page: expected a positive int, got {per_page}.")
        self._select = select
        self._per_page = per_page
        self._seeker: Seeker | None = None
        self._after: Values | None = None
        self._is_at_end = False

    def step(self, session: orm.Session) -> list[T]:
        """Return the next rows; none at the end."""
        if self._is_at_end:
            return []
        if self._seeker is None:
            self._seeker = Seeker(session, self._select)
        rows: Rows = self._seeker.read(session, self._after, self._per_page)
        self._is_at_end = len(rows.items) < self._per_page
        if rows.items:
            self._after = rows.place(-1)
        return rows.items


def iterate(session: orm.Session, walk: Walk[T]) -> Iterator[list[T]]:
    """Yield the pages of a walk."""
    while page := walk.step(session):
        yield page


async def aiterate(session: Any, walk: Walk[T]) -> AsyncIterator[list[T]]:
    """Yield the pages of a walk in an async session."""
    while page := await session.run_sync(walk.step):
        yield page
