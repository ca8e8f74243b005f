"""What must be known of a database to compare rows as it orders them?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Traits:
    """A dialect's ways."""

    is_mysql: bool
    """MySQL or MariaDB."""
    nulls_are_high: bool
    """Whether NULL comes after all values in ascending order, if nothing is said."""
    has_null_ordering: bool
    """Whether it knows ``NULLS FIRST``."""
    seeks_by_row: bool
    """Whether ``(a, b) > (1, 2)`` is valid, and finds its place in an index."""
    floats_as_text: bool
    """Whether the server should decide which kind of float a value is."""


def traits_of(dialect: sa.Dialect) -> Traits:
    """Return the ways of a database and its driver."""
    return _traits(dialect.name, dialect.driver)


@cache
def _traits(name: str, driver: str) -> Traits:
    is_mysql = name in {"mysql", "mariadb"}
    return Traits(
        is_mysql=is_mysql,
        nulls_are_high=name in {"postgresql", "oracle"},
        has_null_ordering=not is_mysql and name != "mssql",
        # MySQL and MariaDB take it, and read the table from its start.
        seeks_by_row=name in {"postgresql", "sqlite", "cockroachdb"},
        # A driver that says "double precision" makes a real 0.1 greater than itself.
        floats_as_text=name == "postgresql" and driver != "asyncpg",
    )


class Raw(sa.types.UserDefinedType[Any]):
    """A value as the driver gives and takes it.

    Nothing is lost on the way: a type of SQLAlchemy's or of the user's may round
    (``Numeric`` on SQLite), and adds casts to parameters that change the comparison
    (``citext`` with ``VARCHAR``).
    """

    cache_ok: bool | None = True

    def get_col_spec(self, **_: Any) -> str:
        raise NotImplementedError


RAW = Raw()


def forms_of(expression: sa.ColumnElement[Any], dialect: sa.Dialect) -> tuple[Any, Any]:
    """Return an order key in the form that is read without loss, and in the form that
    is compared as the key is ordered.
    """
    raw = sa.type_coerce(expression, RAW)
    if not traits_of(dialect).is_mysql:
        return raw, raw
    from sqlalchemy.dialects import mysql  # twenty modules that others do without

    kind = _kind(expression, dialect)
    if isinstance(kind, sa.Float):
        # FLOAT is shown with six digits, and compared with all.
        return raw.op("+", return_type=RAW)(sa.literal_column("0e0")), raw
    is_enum = isinstance(kind, sa.Enum) and kind.native_enum
    if is_enum or isinstance(kind, mysql.SET):
        # Ordered by number, and compared with a string as a string.
        number = raw.op("+", return_type=RAW)(sa.literal_column("0"))
        return number, number
    return raw, raw


def _kind(expression: sa.ColumnElement[Any], dialect: sa.Dialect) -> Any:
    kind = expression.type.dialect_impl(dialect)
    while isinstance(kind, sa.TypeDecorator):
        kind = kind.impl_instance
    return kind
