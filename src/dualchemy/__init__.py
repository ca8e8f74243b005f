"""An async-first SQLAlchemy extension for Quart and Flask."""

from __future__ import annotations

from .errors import (
    ConfigError,
    ContextError,
    DualchemyError,
    MissingDriverError,
    UnknownBindKeyError,
)

__all__ = [
    "ConfigError",
    "ContextError",
    "DualchemyError",
    "MissingDriverError",
    "UnknownBindKeyError",
]
