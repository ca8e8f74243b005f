"""Pydantic: models from rows, related rows and pages, by from_attributes."""

import os

from flask import Flask
from pydantic import BaseModel, ConfigDict, TypeAdapter
from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import Mapped, mapped_column, relationship

from dualchemy import Model
from dualchemy.flask import SQLAlchemy


class Base(Model):
    pass


app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app, model_class=Base)


class Author(Base):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship()


class Book(Base):
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id))


class BookOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    title: str


class AuthorOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str
    books: list[BookOut]


class Page(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    items: list[AuthorOut]
    page: int
    pages: int
    total: int
    has_next: bool


with app.app_context():
    db.create_all()
    db.session.add(Author(name="Ada", books=[Book(title="Notes")]))
    db.session.add(Author(name="Grace"))
    db.session.commit()
with app.app_context():
    ada = db.get_or_404(Author, 1)
    assert AuthorOut.model_validate(ada).model_dump() == {
        "id": 1,
        "name": "Ada",
        "books": [{"title": "Notes"}],
    }
    authors = select(Author).order_by(Author.id)
    page = db.paginate(authors, per_page=1)
    out = Page.model_validate(page)
    assert (out.total, out.pages, out.has_next) == (2, 2, True)
    assert out.items[0].books[0].title == "Notes"
    assert len(TypeAdapter(list[AuthorOut]).validate_python(list(page))) == 1
    (row,) = db.session.execute(select(Book.title)).all()
    assert BookOut.model_validate(row).title == "Notes"
