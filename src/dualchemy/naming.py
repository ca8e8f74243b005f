"""What is a model's table called, and when has a model no table of its own?

The rules are Flask-SQLAlchemy's:
https://flask-sqlalchemy.readthedocs.io/en/stable/models/#defining-models
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import orm

# SQLAlchemy 2.x bases have this metaclass, or none (DeclarativeBaseNoMeta).
_INTERCEPT = type(orm.DeclarativeBase)
_BASES_2X = (orm.DeclarativeBase, orm.DeclarativeBaseNoMeta)


def table_name(class_name: str) -> str:
    """Return the name of a class in ``snake_case``: ``HTTPRequestLog`` is
    ``http_request_log``.
    """
    name = re.sub(r"((?<=[a-z0-9])[A-Z]|(?!^)[A-Z](?=[a-z]))", r"_\1", class_name)
    return name.lower().lstrip("_")


def needs_table_name(cls: type) -> bool:
    """Tell whether ``__tablename__`` should be generated for a class.

    Not for an abstract model or a base; not where the class or a mixin of it sets a
    name, or computes one with ``declared_attr``. A name that a parent *model* sets is
    the parent's.
    """
    if (
        cls.__dict__.get("__abstract__", False)
        or getattr(cls, "__disable_autonaming__", False)
        or not _is_model(cls)
    ):
        return False
    for base in cls.__mro__:
        if "__tablename__" not in base.__dict__:
            continue
        if isinstance(base.__dict__["__tablename__"], orm.declared_attr):
            return False
        is_mixin = not isinstance(base, orm.DeclarativeMeta | _INTERCEPT) and not (
            issubclass(base, orm.DeclarativeBaseNoMeta)
        )
        return not (base is cls or is_mixin or base.__dict__.get("__abstract__", False))
    return True


def _is_model(cls: type) -> bool:
    if any(base in cls.__bases__ for base in _BASES_2X):
        return False
    return issubclass(cls, _BASES_2X) or any(
        isinstance(base, orm.DeclarativeMeta) for base in cls.__mro__[1:]
    )


def make_table(cls: Any, *args: Any, **kwargs: Any) -> sa.Table | None:
    """Make the table of a model; SQLAlchemy calls this as ``__table_cls__``.

    Without a primary key, a model that has a parent with a table uses that table
    (single-table inheritance): nothing is made, and the generated name is taken back.
    """
    schema = kwargs.get("schema")
    key = args[0] if schema is None else f"{schema}.{args[0]}"
    inherits_table = any("__table__" in base.__dict__ for base in cls.__mro__[1:-1])
    if (
        key in cls.metadata.tables  # a reflected table, which the model takes by name
        or any(_is_primary_key(arg) for arg in args)
        or not inherits_table  # SQLAlchemy tells the user about the missing key
    ):
        return sa.Table(*args, **kwargs)
    if "__tablename__" in cls.__dict__:
        del cls.__tablename__
    return None


def _is_primary_key(item: object) -> bool:
    if isinstance(item, sa.Column):
        return item.primary_key
    return isinstance(item, sa.PrimaryKeyConstraint)


def drop_missing_table(cls: Any) -> None:
    """After :func:`make_table` made nothing, have the model show its parent's table."""
    if (
        "__tablename__" not in cls.__dict__
        and cls.__dict__.get("__table__", ...) is None
    ):
        del cls.__table__


class NameMixin:
    """Sets ``__tablename__`` on the models of a SQLAlchemy 2.x declarative base."""

    metadata: ClassVar[sa.MetaData]

    if TYPE_CHECKING:
        __tablename__: Any  # as SQLAlchemy declares it: a name, or a declared_attr

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if needs_table_name(cls):
            cls.__tablename__ = table_name(cls.__name__)
        super().__init_subclass__(**kwargs)
        drop_missing_table(cls)

    __table_cls__: ClassVar[Any] = classmethod(make_table)


class NameMetaMixin(type):
    """Sets ``__tablename__`` on the models of a SQLAlchemy 1.x declarative base."""

    if TYPE_CHECKING:
        __tablename__: Any

    def __init__(
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        if needs_table_name(cls):
            cls.__tablename__ = table_name(cls.__name__)
        super().__init__(name, bases, namespace, **kwargs)
        drop_missing_table(cls)

    __table_cls__ = make_table
