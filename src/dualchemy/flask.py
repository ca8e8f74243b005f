"""``db`` as a Flask application uses it: nothing is awaited.

The class is the same as :class:`dualchemy.SQLAlchemy`; type checkers see the sync API.
The other names are here so that an application on Flask-SQLAlchemy finds all that it
imports from there in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .models import DefaultMeta, DefaultMetaNoName, Model
from .pagination import Pagination, QueryPagination, SelectPagination
from .query import Query
from .recording import get_recorded_queries
from .sessions import Session
from .signals import before_models_committed, models_committed

if TYPE_CHECKING:
    from .extension import Extension
    from .sync_api import SyncHelpers

    class SQLAlchemy(Extension, SyncHelpers):
        """One ``db`` for Quart and Flask, as seen from Flask."""
else:
    from .extension import SQLAlchemy

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
