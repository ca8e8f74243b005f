"""The configuration of both apps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def read() -> dict[str, Any]:
    """Return the config: the database of ``DATABASE_URL``, or a SQLite file here."""
    url = (
        os.environ.get("DATABASE_URL") or f"sqlite:///{Path('catalogue.db').resolve()}"
    )
    bind: dict[str, Any] = {"url": url}
    if url.startswith("sqlite"):
        # Two processes use the file: readers must not wait for a writer, and writers
        # must wait for each other.
        bind["pragmas"] = {
            "journal_mode": "wal",
            "busy_timeout": 10_000,
            "foreign_keys": True,
        }
    return {
        "SQLALCHEMY_BINDS": {None: bind},
        # Signs the cursors of pages. A site of yours keeps a random one to itself.
        "SECRET_KEY": os.environ.get("SECRET_KEY") or "only for the example",
    }
