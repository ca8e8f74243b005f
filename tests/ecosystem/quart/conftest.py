"""One small program for each package, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.apps import Site
from support.databases import Backend


@pytest.fixture
def site(backend: Backend, make_site: Callable[..., Any]) -> Site:
    """A Quart app with an empty database."""
    return make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)
