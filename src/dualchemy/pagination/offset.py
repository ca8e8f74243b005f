"""Which rows are on page *n*, and how many pages are there?"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from math import ceil
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, cast

import sqlalchemy as sa

from ..awaiting import HelperCall
from ..frameworks import abort, request_args

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")

_LARGEST_OFFSET = 2**63 - 1  # a signed 64-bit integer, in every supported database


class PageOptions(TypedDict, total=False):
    """The keyword arguments of ``paginate``; :meth:`.SyncHelpers.paginate` says what
    they mean.
    """

    page: int | None
    per_page: int | None
    max_per_page: int | None
    error_out: bool
    count: bool


class BasePagination(Generic[T]):
    """A page of rows, and where it stands among the others.

    Made by ``db.paginate`` and ``Query.paginate``, not by hand. The arguments are
    described at :meth:`.SyncAPI.paginate`; ``query_args`` are for the subclass, whose
    ``_query_items`` and ``_query_count`` run the statements.
    """

    def __init__(
        self,
        page: int | None = None,
        per_page: int | None = None,
        max_per_page: int | None = 100,
        error_out: bool = True,
        count: bool = True,
        **query_args: Any,
    ) -> None:
        self._query_args = query_args
        self.page: int
        """The number of this page, from 1."""
        self.per_page: int
        """The largest number of items on a page."""
        self.page, self.per_page = _page_arguments(
            page, per_page, max_per_page, error_out
        )
        self.max_per_page: int | None = max_per_page
        """The limit of :attr:`per_page`."""

        within_reach = self._query_offset + self.per_page <= _LARGEST_OFFSET
        items = self._query_items() if within_reach else []
        if not items and self.page != 1 and error_out:
            abort(404)
        self.items: list[T] = items
        """The items on this page; iterating over the page gives the same."""
        self.total: int | None = self._find_total() if count else None
        """The number of items on all pages, or ``None`` if it was not counted."""

    def _find_total(self) -> int:
        is_end = len(self.items) < self.per_page and (self.items or self.page == 1)
        if is_end:
            return self._query_offset + len(self.items)
        return self._query_count()

    @property
    def _query_offset(self) -> int:
        """The number of items on the pages before this one."""
        return (self.page - 1) * self.per_page

    def _query_items(self) -> list[T]:
        """Run the statement for the items of this page."""
        raise NotImplementedError

    def _query_count(self) -> int:
        """Run the statement for the number of all items."""
        raise NotImplementedError

    def _turn_to(self, page: int, error_out: bool) -> Self:
        """Return another page of the same rows, without counting again."""
        other = type(self)(
            page=page,
            per_page=self.per_page,
            max_per_page=self.max_per_page,
            error_out=error_out,
            count=False,
            **self._query_args,
        )
        other.total = self.total
        return other

    @property
    def first(self) -> int:
        """The number of the first item on the page, from 1; 0 on an empty page."""
        return self._query_offset + 1 if self.items else 0

    @property
    def last(self) -> int:
        """The number of the last item on the page, inclusive; 0 on an empty page."""
        return self._query_offset + len(self.items) if self.items else 0

    @property
    def pages(self) -> int:
        """The number of pages; 0 if there are no items or they were not counted."""
        return ceil(self.total / self.per_page) if self.total else 0

    @property
    def has_prev(self) -> bool:
        """Whether there is a page before this one."""
        return self.page > 1

    @property
    def has_next(self) -> bool:
        """Whether there is a page after this one."""
        return self.page < self.pages

    @property
    def prev_num(self) -> int | None:
        """The number of the page before, or ``None``."""
        return self.page - 1 if self.has_prev else None

    @property
    def next_num(self) -> int | None:
        """The number of the page after, or ``None``."""
        return self.page + 1 if self.has_next else None

    def iter_pages(
        self,
        *,
        left_edge: int = 2,
        left_current: int = 2,
        right_current: int = 4,
        right_edge: int = 2,
    ) -> Iterator[int | None]:
        """Yield page numbers for a row of links, with ``None`` for each gap.

        On page 7 of 20: 1, 2, None, 5, 6, 7, 8, 9, 10, 11, None, 19, 20.

        :param left_edge: How many pages to show at the beginning.
        :param left_current: How many before the current one.
        :param right_current: How many after the current one.
        :param right_edge: How many at the end.
        """
        shown = sorted(
            {
                *range(1, min(left_edge, self.pages) + 1),
                *range(
                    max(self.page - left_current, 1),
                    min(self.page + right_current, self.pages) + 1,
                ),
                *range(max(self.pages - right_edge + 1, 1), self.pages + 1),
            }
        )
        before = 0
        for number in shown:
            if number > before + 1:
                yield None
            yield number
            before = number
        if before < self.pages:
            yield None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} page {self.page} of {self.pages or '?'},"
            f" {len(self.items)} items>"
        )


class Pagination(BasePagination[T]):
    """A page on the sync API."""

    def prev(self, *, error_out: bool = False) -> Self:
        """Query the page before this one.

        :param error_out: Abort with ``404 Not Found`` if there is none.
        """
        return self._turn_to(self.page - 1, error_out)

    def next(self, *, error_out: bool = False) -> Self:
        """Query the page after this one.

        :param error_out: Abort with ``404 Not Found`` if there is none.
        """
        return self._turn_to(self.page + 1, error_out)


class AsyncPagination(BasePagination[T]):
    """A page on the async API: as :class:`Pagination`, with ``prev`` and ``next``
    awaited.
    """

    def prev(self, *, error_out: bool = False) -> Coroutine[Any, Any, Self]:
        """Query the page before this one.

        :param error_out: Abort with ``404 Not Found`` if there is none.
        """
        return HelperCall("page.prev", self._turn_async(self.page - 1, error_out))

    def next(self, *, error_out: bool = False) -> Coroutine[Any, Any, Self]:
        """Query the page after this one.

        :param error_out: Abort with ``404 Not Found`` if there is none.
        """
        return HelperCall("page.next", self._turn_async(self.page + 1, error_out))

    async def _turn_async(self, page: int, error_out: bool) -> Self:
        from sqlalchemy.ext.asyncio import async_session

        session = async_session(self._query_args["session"])
        assert session is not None  # db.aio.paginate made the page in this session
        return await session.run_sync(lambda _: self._turn_to(page, error_out))


class _SelectMixin(BasePagination[T]):
    """Pages of a ``select``; query arguments ``select`` and ``session``."""

    def _query_items(self) -> list[T]:
        select: sa.Select[Any] = self._query_args["select"]
        result = self._query_args["session"].execute(
            select.limit(self.per_page).offset(self._query_offset)
        )
        columns = select.column_descriptions
        # Joined eager loads repeat an entity, once for each related row. Values of
        # plain columns may be equal, and are separate rows all the same.
        if all(column["entity"] is column["expr"] for column in columns):
            result = result.unique()
        return list(result.scalars() if len(columns) == 1 else result)

    def _query_count(self) -> int:
        rows = self._query_args["select"].order_by(None).subquery()
        count = sa.select(sa.func.count()).select_from(rows)
        return cast("int", self._query_args["session"].execute(count).scalar_one())


class SelectPagination(_SelectMixin[T], Pagination[T]):
    """Made by ``db.paginate`` on the sync API."""


class AsyncSelectPagination(_SelectMixin[T], AsyncPagination[T]):
    """Made by ``db.paginate`` on the async API."""


class QueryPagination(Pagination[T]):
    """Made by :meth:`.Query.paginate`; query argument ``query``."""

    def _query_items(self) -> list[T]:
        query = self._query_args["query"]
        return list(query.limit(self.per_page).offset(self._query_offset))

    def _query_count(self) -> int:
        return cast("int", self._query_args["query"].order_by(None).count())


def _page_arguments(
    page: int | None,
    per_page: int | None,
    max_per_page: int | None,
    error_out: bool,
) -> tuple[int, int]:
    page = _positive("page", page, 1, error_out)
    per_page = _positive("per_page", per_page, 20, error_out)
    if max_per_page is not None:
        per_page = min(per_page, max_per_page)
    return page, min(per_page, _LARGEST_OFFSET)


def _positive(name: str, value: int | None, default: int, error_out: bool) -> int:
    """Return the argument, else what the request says, else the default; what is not a
    positive integer is a ``404 Not Found``, or the default.
    """
    if value is None:
        args = request_args()
        try:
            value = int(args.get(name, default)) if args is not None else default
        except ValueError:
            value = 0
    elif not isinstance(value, int):
        raise TypeError(f"{name}: expected an int, got {value!r}.")
    if value >= 1:
        return value
    if error_out:
        abort(404)
    return default
