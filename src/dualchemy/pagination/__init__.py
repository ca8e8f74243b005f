"""How is a statement shown a page at a time?"""

from __future__ import annotations

from .offset import (
    AsyncPagination,
    AsyncSelectPagination,
    BasePagination,
    PageOptions,
    Pagination,
    QueryPagination,
    SelectPagination,
)

__all__ = [
    "AsyncPagination",
    "AsyncSelectPagination",
    "BasePagination",
    "PageOptions",
    "Pagination",
    "QueryPagination",
    "SelectPagination",
]
