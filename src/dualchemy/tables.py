"""Which metadata does a ``db.Table`` belong to?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from .routing import Metadatas

if TYPE_CHECKING:
    from typing import Self, overload

    from sqlalchemy.sql.schema import SchemaItem


class Table(sa.Table):
    """A :class:`sqlalchemy.schema.Table` that needs no ``metadata``: it is chosen by
    ``bind_key``, and is the default one without.
    """

    if TYPE_CHECKING:

        @overload
        def __init__(
            self,
            name: str,
            *args: SchemaItem,
            bind_key: str | None = None,
            **kwargs: Any,
        ) -> None: ...

        @overload
        def __init__(
            self, name: str, metadata: sa.MetaData, *args: SchemaItem, **kwargs: Any
        ) -> None: ...

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        # Python calls this once more after __new__, with the user's arguments, and
        # SQLAlchemy ignores that call.
        super().__init__(name, *(args or (self.metadata,)), **kwargs)


def make_table_class(metadatas: Metadatas) -> type[Table]:
    """Return a :class:`Table` that chooses among these metadatas."""

    class BoundTable(Table):
        def __new__(
            cls, *args: Any, bind_key: str | None = None, **kwargs: Any
        ) -> Self:
            # Without arguments SQLAlchemy has the right error.
            if args and not isinstance((*args, None)[1], sa.MetaData):
                args = (args[0], metadatas.of(bind_key), *args[1:])
            return super().__new__(cls, *args, **kwargs)

    BoundTable.__name__ = BoundTable.__qualname__ = "Table"
    return BoundTable
