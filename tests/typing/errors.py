"""Errors derive from those that Flask-SQLAlchemy raises."""

from __future__ import annotations

from dualchemy import ConfigError, UnknownBindKeyError


def show(error: RuntimeError | KeyError) -> str:
    return str(error)


show(ConfigError("SQLALCHEMY_DATABASE_URI: missing"))
show(UnknownBindKeyError("reports", [None]))
