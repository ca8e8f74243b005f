"""The tables of the catalogue. Nothing here knows Quart or Flask."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, DateTime, ForeignKey, String, Text, TypeDecorator
from sqlalchemy.orm import Mapped, mapped_column, relationship

from dualchemy import Model, SQLAlchemy


class UTCDateTime(TypeDecorator[datetime]):
    """A time with its zone, also from databases that store none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(
        self, value: datetime | None, dialect: Any
    ) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


class Base(Model):
    """The base of all models."""


db = SQLAlchemy(model_class=Base)

entry_tag = db.Table(
    "entry_tag",
    Column("entry_id", ForeignKey("entry.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id", ondelete="CASCADE"), primary_key=True),
)


class Entry(Base):
    """A module, class, function or method."""

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10), index=True)
    name: Mapped[str] = mapped_column(String(190), unique=True)
    module: Mapped[str] = mapped_column(String(100), index=True)
    summary: Mapped[str] = mapped_column(String(300), default="")
    doc: Mapped[str] = mapped_column(Text, default="")
    note_count: Mapped[int] = mapped_column(default=0)
    last_note_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    tags: Mapped[list[Tag]] = relationship(secondary=entry_tag, order_by="Tag.name")
    notes: Mapped[list[Note]] = relationship(back_populates="entry")


class Tag(Base):
    """A word that people put on entries."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30), unique=True)


class Note(Base):
    """What somebody has to say about an entry."""

    id: Mapped[int] = mapped_column(primary_key=True)
    entry_id: Mapped[int] = mapped_column(
        ForeignKey(Entry.id, ondelete="CASCADE"), index=True
    )
    author: Mapped[str] = mapped_column(String(40))
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(
        UTCDateTime, default=lambda: datetime.now(UTC)
    )

    entry: Mapped[Entry] = relationship(back_populates="notes")


class Seeded(Base):
    """One row once the catalogue is filled; its key lets only one process do that."""

    id: Mapped[int] = mapped_column(primary_key=True)
