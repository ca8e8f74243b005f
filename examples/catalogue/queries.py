"""What the two apps share: statements, forms and JSON. Nothing here touches a database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, Update, func, select, update
from sqlalchemy.orm import joinedload, selectinload

from .models import Entry, Note, Tag

PER_PAGE = 25
KINDS = ("module", "class", "function", "method")


def _clean(text: object) -> str:
    """Text as a database takes it: PostgreSQL stores no NUL character."""
    return str(text or "").replace("\x00", "").strip()


@dataclass(frozen=True)
class Filters:
    """Which entries a list shows."""

    q: str = ""
    kind: str = ""
    tag: str = ""

    @classmethod
    def read(cls, args: Mapping[str, str]) -> Filters:
        kind = args.get("kind", "")
        return cls(
            q=_clean(args.get("q"))[:100],
            kind=kind if kind in KINDS else "",
            tag=_clean(args.get("tag"))[:30],
        )

    @property
    def arguments(self) -> dict[str, str]:
        """Those that are set, for links."""
        return {name: value for name, value in vars(self).items() if value}


def entries(filters: Filters) -> Select[Any]:
    """The entries that match, by name."""
    statement = select(Entry).options(selectinload(Entry.tags)).order_by(Entry.name)
    if filters.q:
        statement = statement.where(
            Entry.name.icontains(filters.q, autoescape=True)
            | Entry.summary.icontains(filters.q, autoescape=True)
        )
    if filters.kind:
        statement = statement.where(Entry.kind == filters.kind)
    if filters.tag:
        statement = statement.where(Entry.tags.any(Tag.name == filters.tag))
    return statement


WITH_TAGS = [selectinload(Entry.tags)]


def notes_on(entry_id: int) -> Select[Any]:
    """The notes on an entry, the newest first."""
    return select(Note).where(Note.entry_id == entry_id).order_by(Note.id.desc())


def notes_after(note_id: int, limit: int = 50) -> Select[Any]:
    """The notes that came after one, with their entries, the oldest first."""
    return (
        select(Note)
        .where(Note.id > note_id)
        .options(joinedload(Note.entry))
        .order_by(Note.id)
        .limit(limit)
    )


def latest_note_id() -> Select[Any]:
    """The id of the newest note, or 0."""
    return select(func.coalesce(func.max(Note.id), 0))


def tag_named(name: str) -> Select[Any]:
    """The tag of a name."""
    return select(Tag).where(Tag.name == name)


def recount_notes(entry_id: int) -> Update:
    """Bring an entry's number of notes, and the time of the last, up to date."""
    notes = select(Note).where(Note.entry_id == entry_id).subquery()
    return (
        update(Entry)
        .where(Entry.id == entry_id)
        .values(
            note_count=select(func.count()).select_from(notes).scalar_subquery(),
            last_note_at=select(func.max(notes.c.created_at)).scalar_subquery(),
        )
        .execution_options(synchronize_session=False)
    )


@dataclass
class NoteForm:
    """A note as somebody typed it, and what is wrong with it."""

    author: str = ""
    body: str = ""
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, data: object) -> NoteForm:
        """Take a form's or a JSON document's fields."""
        if not isinstance(data, Mapping):
            return cls(errors={"body": "Expected an object with author and body."})
        form = cls(_clean(data.get("author")), _clean(data.get("body")))
        if not form.author:
            form.errors["author"] = "Please give your name."
        elif len(form.author) > 40:
            form.errors["author"] = "A name has at most 40 characters."
        if not form.body:
            form.errors["body"] = "Please write something."
        elif len(form.body) > 2000:
            form.errors["body"] = "A note has at most 2,000 characters."
        return form

    @classmethod
    def of(cls, note: Note) -> NoteForm:
        return cls(note.author, note.body)

    def apply(self, note: Note) -> Note:
        note.author, note.body = self.author, self.body
        return note


def tag_name(text: object) -> str:
    """A tag's name as it is stored, or nothing if no name can be made of the text."""
    return re.sub(r"[^a-z0-9]+", "-", _clean(text).lower()).strip("-")[:30].strip("-")


def entry_json(entry: Entry, *, doc: bool = False) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": entry.id,
        "kind": entry.kind,
        "name": entry.name,
        "summary": entry.summary,
        "tags": [tag.name for tag in entry.tags],
        "note_count": entry.note_count,
    }
    return {**shown, "doc": entry.doc} if doc else shown


def note_json(note: Note) -> dict[str, Any]:
    return {
        "id": note.id,
        "entry_id": note.entry_id,
        "author": note.author,
        "body": note.body,
        "created_at": note.created_at.isoformat(),
    }


def live_json(note: Note) -> dict[str, Any]:
    """A note for the live page, which shows its entry too."""
    return {**note_json(note), "entry": note.entry.name}


def page_json(page: Any) -> dict[str, Any]:
    return {
        "items": [entry_json(entry) for entry in page.items],
        "page": page.page,
        "pages": page.pages,
        "total": page.total,
    }
