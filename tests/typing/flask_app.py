"""A Flask application: the session is a ``Session``, and nothing is awaited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

import sqlalchemy as sa
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column, scoped_session

from dualchemy import Model, Session
from dualchemy.async_sessions import AsyncSession
from dualchemy.flask import SQLAlchemy


class Base(Model):
    pass


db = SQLAlchemy(model_class=Base, engine_options={"pool_pre_ping": True})


class User(Base):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


tags = db.Table("tags", sa.Column("id", sa.Integer), bind_key="tags")
assert_type(tags.c.id.name, str)

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///app.db"
db.init_app(app)


@app.get("/users/<int:id>")
def user(id: int) -> str:
    found = db.get_or_404(User, id)
    assert_type(found, User)
    assert_type(db.session.get(User, id), User | None)
    assert_type(db.session.scalars(select(User)).all(), Sequence[User])
    return found.name


@app.get("/users")
def users() -> list[str]:
    page = db.paginate(select(User).order_by(User.name))
    assert_type(page.items, list[User])
    assert_type(page.next().items, list[User])
    assert_type(page.total_is_exact, bool)
    by_cursor = db.paginate_keyset(select(User).order_by(User.name), cursor="")
    assert_type(by_cursor.items, list[User])
    assert_type(by_cursor.next_cursor, str | None)
    assert_type(by_cursor.links(), dict[str, str])
    assert_type(page.link_header(), str)
    assert_type(page.url(2, external=True), str)
    for some in db.pages(select(User.name), per_page=50):
        assert_type(some, list[str])
    db.paginate(select(User), page=2, per_page=5, count="estimate", error_out=False)
    User.query.paginate(count=1000)
    assert_type(db.first_or_404(select(User)), User)
    assert_type(db.one_or_404(select(User.name)), str)
    return [each.name for each in page]


@app.get("/report")
async def report() -> str:
    async with db.aio.sessionmaker() as session:
        assert_type(session, AsyncSession)
        names = (await session.scalars(select(User.name))).all()
    return ", ".join(names)


with app.app_context():
    db.create_all()
    assert_type(db.engine, sa.Engine)
    with db.sync.sessionmaker() as each:
        assert_type(each, Session)


def takes_session(session: scoped_session[Session]) -> None:
    session.commit()


takes_session(db.session)
