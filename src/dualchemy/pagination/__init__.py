"""How is a statement shown a page at a time?"""

from __future__ import annotations

from .keyset import (
    KeysetOptions,
    KeysetPagination,
    Walk,
    aiterate,
    iterate,
    keyset_page,
)
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
    "KeysetOptions",
    "KeysetPagination",
    "PageOptions",
    "Pagination",
    "QueryPagination",
    "SelectPagination",
    "Walk",
    "aiterate",
    "check_keywords",
    "iterate",
    "keyset_page",
    "select_page",
]
