"""``db`` as a Quart application uses it: what touches the database is awaited.

The class is the same as :class:`dualchemy.SQLAlchemy`, which type checkers see this way
too. This module does not import Quart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .async_api import AsyncHelpers
    from .extension import Extension

    class SQLAlchemy(Extension, AsyncHelpers):
        """One ``db`` for Quart and Flask, as seen from Quart."""
else:
    from .extension import SQLAlchemy

__all__ = ["SQLAlchemy"]
