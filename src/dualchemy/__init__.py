"""An async-first SQLAlchemy extension for Quart and Flask."""

from __future__ import annotations

from .errors import (
    ConcurrentUseError,
    ConfigError,
    ContextError,
    DualchemyError,
    IsolationError,
    LazyLoadError,
    MissingDriverError,
    PoolTimeoutError,
    UnknownBindKeyError,
)
from .impersonation import install_as_flask_sqlalchemy
from .models import Model
from .pagination import KeysetPagination, Pagination
from .quart import SQLAlchemy
from .query import Query
from .recording import get_recorded_queries
from .sessions import Session
from .signals import before_models_committed, models_committed

__all__ = [
    "ConcurrentUseError",
    "ConfigError",
    "ContextError",
    "DualchemyError",
    "IsolationError",
    "KeysetPagination",
    "LazyLoadError",
    "MissingDriverError",
    "Model",
    "Pagination",
    "PoolTimeoutError",
    "Query",
    "SQLAlchemy",
    "Session",
    "UnknownBindKeyError",
    "before_models_committed",
    "get_recorded_queries",
    "install_as_flask_sqlalchemy",
    "models_committed",
]
