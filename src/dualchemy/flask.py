"""``db`` as a Flask application uses it: nothing is awaited.

The class is the same as :class:`dualchemy.SQLAlchemy`; type checkers see the sync API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .extension import Extension
    from .sync_api import SyncHelpers

    class SQLAlchemy(Extension, SyncHelpers):
        """One ``db`` for Quart and Flask, as seen from Flask."""
else:
    from .extension import SQLAlchemy

__all__ = ["SQLAlchemy"]
