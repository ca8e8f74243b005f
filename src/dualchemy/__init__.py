"""An async-first SQLAlchemy extension for Quart and Flask."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from .models import Model
from .query import Query
from .sessions import Session

if TYPE_CHECKING:
    from .impersonation import install_as_flask_sqlalchemy
    from .pagination import KeysetPagination, Pagination
    from .quart import SQLAlchemy
    from .recording import get_recorded_queries
    from .signals import before_models_committed, models_committed
else:
    from .extension import SQLAlchemy

    # Not every application needs these, and together they are half of the library.
    _MODULES = {
        "KeysetPagination": "pagination",
        "Pagination": "pagination",
        "QueryPagination": "pagination",
        "SelectPagination": "pagination",
        "before_models_committed": "signals",
        "get_recorded_queries": "recording",
        "install_as_flask_sqlalchemy": "impersonation",
        "models_committed": "signals",
    }

    def __getattr__(name: str) -> Any:
        if name in _MODULES.values():
            return import_module(f".{name}", __name__)
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


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
