"""Which metadata belongs to a bind key?"""

from __future__ import annotations

import sqlalchemy as sa

from .routing import BIND_KEY


class Metadatas(dict[str | None, sa.MetaData]):
    """Bind keys to their metadata; ``None`` is the default."""

    def of(self, bind_key: str | None) -> sa.MetaData:
        """Return the metadata of a bind key, made on first use with the naming
        convention of the default one.
        """
        if bind_key not in self:
            convention = None if bind_key is None else self.of(None).naming_convention
            self.adopt(bind_key, sa.MetaData(naming_convention=convention))
        return self[bind_key]

    def adopt(self, bind_key: str | None, metadata: sa.MetaData) -> None:
        """Use an existing metadata for a bind key."""
        metadata.info[BIND_KEY] = bind_key
        self[bind_key] = metadata
