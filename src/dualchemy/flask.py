"""``db`` as a Flask application uses it: nothing is awaited.

The class is the same as :class:`dualchemy.SQLAlchemy`; type checkers see the sync API.
The other names are here so that an application on Flask-SQLAlchemy finds all that it
imports from there in one place.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .models import DefaultMeta, DefaultMetaNoName, Model
from .query import Query
from .sessions import Session

if TYPE_CHECKING:
    from .extension import Extension
    from .pagination import Pagination, QueryPagination, SelectPagination
    from .recording import get_recorded_queries
    from .signals import before_models_committed, models_committed
    from .sync_api import SyncHelpers

    class SQLAlchemy(Extension, SyncHelpers):
        """One ``db`` for Quart and Flask, as seen from Flask."""
else:
    from .extension import SQLAlchemy

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(sys.modules[__package__], name)  # which finds them when needed

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "DefaultMeta",
    "DefaultMetaNoName",
    "Model",
    "Pagination",
    "Query",
    "QueryPagination",
    "SQLAlchemy",
    "SelectPagination",
    "Session",
    "before_models_committed",
    "get_recorded_queries",
    "models_committed",
]
