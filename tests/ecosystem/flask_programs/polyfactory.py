"""polyfactory: factories of models from their columns, with db.session."""

import os

from flask import Flask
from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory
from sqlalchemy import ForeignKey, String
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
    name: Mapped[str] = mapped_column(String(30))


class Book(Base):
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(30))
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id))
    author: Mapped[Author] = relationship()


class AuthorFactory(SQLAlchemyFactory[Author]):
    __set_primary_key__ = False


class BookFactory(SQLAlchemyFactory[Book]):
    __session__ = db.session
    __set_primary_key__ = False
    __set_relationships__ = True


with app.app_context():
    db.create_all()
    BookFactory.create_sync(title="Notes")
    assert len(BookFactory.create_batch_sync(2)) == 2
with app.app_context():
    book = db.first_or_404(db.select(Book).where(Book.title == "Notes"))
    assert len(book.author.name) <= 30
    assert db.session.scalar(db.select(db.func.count(Author.id))) == 3
