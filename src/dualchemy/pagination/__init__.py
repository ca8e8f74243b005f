"""How is a statement shown a page at a time?"""

from __future__ import annotations

from .offset import (
    AsyncPagination,
    AsyncSelectPagination,
    BasePagination,
    Pagination,
    QueryPagination,
    SelectPagination,
    select_page,
)
from .options import PageOptions, check_keywords

__all__ = [
    "AsyncPagination",
    "AsyncSelectPagination",
    "BasePagination",
    "PageOptions",
    "Pagination",
    "QueryPagination",
    "SelectPagination",
    "check_keywords",
    "select_page",
]
