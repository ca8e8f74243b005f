"""Which bind does a table belong to, and so a statement go to?

The answer is a bind key. A mapper or a table belongs to the bind whose key its metadata
carries in ``info["bind_key"]``; what has no such key goes to the default bind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, TypeGuard

from sqlalchemy import ClauseElement, MetaData, Select, Table, UpdateBase, inspect
from sqlalchemy.exc import InvalidRequestError, NoInspectionAvailable
from sqlalchemy.orm.exc import UnmappedClassError
from sqlalchemy.sql import visitors
from sqlalchemy.sql.expression import FromClause, TextClause
from sqlalchemy.util import LRUCache

from .errors import join_keys

BIND_KEY = "bind_key"


class Metadatas(dict[str | None, MetaData]):
    """Bind keys to their metadata; ``None`` is the default."""

    def of(self, bind_key: str | None) -> MetaData:
        """Return the metadata of a bind key, made on first use with the naming
        convention of the default one.
        """
        if bind_key not in self:
            convention = None if bind_key is None else self.of(None).naming_convention
            self.adopt(bind_key, MetaData(naming_convention=convention))
        return self[bind_key]

    def adopt(self, bind_key: str | None, metadata: MetaData) -> None:
        """Use an existing metadata for a bind key."""
        metadata.info[BIND_KEY] = bind_key
        self[bind_key] = metadata


KnownKeys: TypeAlias = "LRUCache[Any, str | None]"
"""Bind keys by the structure of statements, as SQLAlchemy's cache of SQL has it."""


def bind_key(mapper: Any, clause: Any, known: KnownKeys) -> str | None:
    """Return the bind key for an operation of a session.

    :param mapper: The mapper or mapped class of the operation, if it has one. It
        decides, for a joined-inheritance child may live in another bind than its
        parent.
    :param clause: The statement or table, if it has one.
    :param known: The bind keys of earlier statements; receives this one's.
    :raises sqlalchemy.orm.exc.UnmappedClassError: if ``mapper`` is a class that is not
        mapped.
    :raises sqlalchemy.exc.InvalidRequestError: if the statement's tables belong to
        several binds.
    """
    if mapper is not None:
        table = _table_of(mapper)
        if _has_key(table):
            return _key_of_table(table)
        if clause is None:
            clause = table
    if clause is None or type(clause) is TextClause:  # text() knows of no table
        return None
    if isinstance(clause, UpdateBase):
        clause = clause.table
    if isinstance(clause, Table):
        return _key_of_table(clause)
    # A select keeps this key, and SQLAlchemy asks for it when it runs the statement.
    structure = clause._generate_cache_key() if isinstance(clause, Select) else None
    if structure is None:
        return shared_bind_key(clause)
    try:
        return known[structure.key]
    except KeyError:
        key = known[structure.key] = shared_bind_key(clause)
        return key


def decides_alone(mapper: Any) -> bool:
    """Tell whether a mapper has a bind key of its own, whatever the statement."""
    return _has_key(_table_of(mapper))


def _has_key(table: FromClause) -> TypeGuard[Table]:
    return isinstance(table, Table) and BIND_KEY in table.metadata.info


def _table_of(mapper: Any) -> FromClause:
    try:
        table: FromClause = inspect(mapper).local_table
    except NoInspectionAvailable as error:
        if isinstance(mapper, type):
            raise UnmappedClassError(mapper) from error
        raise
    return table


def shared_bind_key(
    clause: ClauseElement, cause: Exception | None = None
) -> str | None:
    """Return the bind key that all tables of a clause share.

    :raises sqlalchemy.exc.InvalidRequestError: if they share none; from ``cause``.
    """
    keys = {_key_of_table(table): table for table in tables_of(clause)}
    if len(keys) > 1:
        places = ", ".join(f"{table.name!r}" for table in keys.values())
        raise InvalidRequestError(
            f"The statement uses tables of several binds, {join_keys(keys)}"
            f" (tables {places}), and no database can join over them. Run one statement"
            " for each bind."
        ) from cause
    return next(iter(keys), None)


def _key_of_table(table: Table) -> str | None:
    key: str | None = table.metadata.info.get(BIND_KEY)
    return key


def tables_of(clause: ClauseElement) -> Iterator[Table]:
    """Yield the tables that a clause mentions, in its columns too."""
    for element in visitors.iterate(clause):
        if isinstance(element, Table):
            yield element
        elif isinstance(table := getattr(element, "table", None), Table):
            yield table
