"""Which rows are on page *n*, and how many pages are there?"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from math import ceil
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import orm

from ..awaiting import HelperCall
from ..frameworks import abort
from .links import Linked, url_with
from .options import (
    Count,
    PageOptions,
    check_count,
    check_keywords,
    read_number,
    read_per_page,
)
from .statements import (
    Total,
    between,
    check_statement,
    count_rows,
    fetch,
    has_rows_after,
    is_joined,
)

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")
P = TypeVar("P", bound="BasePagination[Any]")


def select_page(
    kind: type[P], session: orm.Session, select: Any, options: PageOptions
) -> P:
    """Make the page of a ``select`` or a union.

    :raises TypeError: if the statement has no pages, or an option does not exist.
    """
    check_keywords("paginate", options, PageOptions)
    check_statement("paginate", select)
    return kind(select=select, session=session, **options)


class BasePagination(Linked, Generic[T]):
    """A page of rows, and where it stands among the others.

    Made by ``db.paginate`` and ``Query.paginate``, not by hand. The arguments are
    described at :meth:`.SyncHelpers.paginate`; ``query_args`` are for the subclass,
    whose ``_query_items`` and ``_query_count`` run the statements.
    """

    _has_more: bool | None = None
    """Whether rows come after this page; ``None`` if the subclass cannot tell."""
    _shows_end: bool = True
    """Whether a page that is not full is the last one, and so shows the total."""

    def __init__(
        self,
        page: int | None = None,
        per_page: int | None = None,
        max_per_page: int | None = 100,
        error_out: bool = True,
        count: Count = True,
        **query_args: Any,
    ) -> None:
        check_count(count)
        self._query_args = query_args
        self.page: int = read_number("page", page, 1, error_out)
        """The number of this page, from 1."""
        self.per_page: int = read_per_page(per_page, max_per_page, error_out)
        """The largest number of items on a page."""
        self.max_per_page: int | None = max_per_page
        """The limit of :attr:`per_page`."""

        items = self._query_items()
        if not items and self.page != 1 and error_out:
            abort(404)
        self.items: list[T] = items
        """The items on this page; iterating over the page gives the same."""
        self.total: int | None = None
        """The number of items on all pages, or ``None`` if it was not counted."""
        self.total_is_exact: bool = False
        """Whether :attr:`total` is the number of items. If false, there are more than
        that, or about as many, by what the ``count`` argument asked for.
        """
        if count is not False:
            self._set_total(self._shown_total() or self._find_total(count))

    def _shown_total(self) -> Total | None:
        """Return the total if the page shows it by being the last."""
        is_full = len(self.items) >= self.per_page
        has_more = is_full if self._has_more is None else self._has_more
        if has_more or not self._shows_end or (not self.items and self.page > 1):
            return None
        return Total(self._query_offset + len(self.items))

    def _find_total(self, count: Count) -> Total:
        seen = self._query_offset + len(self.items)
        if count is True or count == "estimate":
            return self._query_total(count)
        if self._has_more and seen >= count:
            return Total(seen, is_exact=False)  # past the bound, and known already
        return self._query_total(count)

    def _set_total(self, total: Total) -> None:
        self.total, self.total_is_exact = total.number, total.is_exact
        if not total.is_exact:
            seen = self._query_offset + len(self.items)
            self.total = max(total.number, seen)

    def _query_total(self, count: Count) -> Total:
        """Run the statement for the number of all items, or about how many."""
        return Total(self._query_count())

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
        if self.total is not None:
            known = Total(self.total, self.total_is_exact)
            other._set_total(other._shown_total() or known)
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
        """The number of pages, as far as known where :attr:`total` is not exact; 0 if
        there are no items or they were not counted.
        """
        if not self.total:
            return 0
        pages = ceil(self.total / self.per_page)
        return pages if self.total_is_exact else max(pages, self.page + self.has_next)

    @property
    def has_prev(self) -> bool:
        """Whether there is a page before this one."""
        return self.page > 1

    @property
    def has_next(self) -> bool:
        """Whether there is a page after this one; also known if nothing was counted."""
        if self._has_more is not None:
            return self._has_more
        return self.page < ceil((self.total or 0) / self.per_page)

    @property
    def prev_num(self) -> int | None:
        """The number of the page before, or ``None``."""
        return self.page - 1 if self.has_prev else None

    @property
    def next_num(self) -> int | None:
        """The number of the page after, or ``None``."""
        return self.page + 1 if self.has_next else None

    def url(self, page: int, *, external: bool = False) -> str:
        """Return the URL of a page: that of the current request, its other arguments
        kept.

        :param page: The number of the page.
        :param external: With scheme and host, rather than from the path on.
        :raises ContextError: outside a request.
        """
        return url_with({"page": page}, external=external)

    def _arguments_of(self) -> dict[str, dict[str, object]]:
        numbers = {"first": 1, "prev": self.prev_num, "next": self.next_num}
        if self.total_is_exact:
            numbers["last"] = max(self.pages, 1)
        return {
            relation: {"page": number}
            for relation, number in numbers.items()
            if number is not None
        }

    def iter_pages(
        self,
        *,
        left_edge: int = 2,
        left_current: int = 2,
        right_current: int = 4,
        right_edge: int = 2,
    ) -> Iterator[int | None]:
        """Yield page numbers for a row of links, with ``None`` for each gap.

        On page 7 of 20: 1, 2, None, 5, 6, 7, 8, 9, 10, 11, None, 19, 20. Where
        :attr:`total` is not exact nobody knows the end, and a gap takes its place.

        :param left_edge: How many pages to show at the beginning.
        :param left_current: How many before the current one.
        :param right_current: How many after the current one.
        :param right_edge: How many at the end.
        """
        if not self.total_is_exact:
            right_edge = 0
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
        if before < self.pages or (before and not self.total_is_exact):
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
    """A page on the async API: as :class:`.Pagination`, with ``prev`` and ``next``
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
        rows, merges = self._fetch(self._query_offset, self.per_page + 1)
        self._has_more = len(rows) > self.per_page
        if not self._has_more and merges and is_joined(self._statement):
            # The joins of the statement repeat its entities, which were merged: how
            # many rows there were, and whether the last is the next page's, is lost.
            self._shows_end = False
            rows, _ = self._fetch(self._query_offset, self.per_page)
            end = self._query_offset + self.per_page
            self._has_more = has_rows_after(self._session, self._statement, end)
        return rows[: self.per_page]

    def _fetch(self, offset: int, limit: int) -> tuple[list[T], bool]:
        """Return some rows, and whether repeated ones among them were merged."""
        statement = between(self._statement, offset, limit)
        return ([], False) if statement is None else fetch(self._session, statement)

    def _query_count(self) -> int:
        return self._query_total(True).number

    def _query_total(self, count: Count) -> Total:
        return count_rows(self._session, self._statement, count)

    @property
    def _statement(self) -> Any:
        return self._query_args["select"]

    @property
    def _session(self) -> orm.Session:
        session: orm.Session = self._query_args["session"]
        return session


class SelectPagination(_SelectMixin[T], Pagination[T]):
    """Made by ``db.paginate`` on the sync API."""


class AsyncSelectPagination(_SelectMixin[T], AsyncPagination[T]):
    """Made by ``db.paginate`` on the async API."""


class QueryPagination(_SelectMixin[T], Pagination[T]):
    """Made by :meth:`.Query.paginate`; query argument ``query``."""

    def _fetch(self, offset: int, limit: int) -> tuple[list[T], bool]:
        query = between(self._query_args["query"], offset, limit)
        # A legacy query merges equal entities, whether joins repeat them or not.
        return ([], False) if query is None else (list(query), True)

    @property
    def _statement(self) -> Any:
        return self._query_args["query"].enable_eagerloads(False).statement

    @property
    def _session(self) -> orm.Session:
        session: orm.Session = self._query_args["query"].session
        return session
