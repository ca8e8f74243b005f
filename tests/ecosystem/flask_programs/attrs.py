"""attrs: classes mapped to tables of db, in its session, binds and pages."""

import os

from attrs import define, field
from flask import Flask
from sqlalchemy import Column, ForeignKey, Integer, String
from sqlalchemy.orm import registry, relationship

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config.update(
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
    SQLALCHEMY_BINDS={"other": os.environ["OTHER_DATABASE_URL"]},
)
db = SQLAlchemy(app)
mappers = registry(metadata=db.metadata)


@define(slots=False, eq=False)
class Post:
    body: str = ""


@define(slots=False, eq=False)
class User:
    name: str
    posts: list[Post] = field(factory=list)


@define(slots=False, eq=False)
class Event:
    kind: str


users = db.Table(
    "user", Column("id", Integer, primary_key=True), Column("name", String(30))
)
posts = db.Table(
    "post",
    Column("id", Integer, primary_key=True),
    Column("user_id", ForeignKey("user.id")),
    Column("body", String(30)),
)
events = db.Table(
    "event",
    Column("id", Integer, primary_key=True),
    Column("kind", String(30)),
    bind_key="other",
)
mappers.map_imperatively(Post, posts)
mappers.map_imperatively(User, users, properties={"posts": relationship(Post)})
mappers.map_imperatively(Event, events)

with app.app_context():
    db.create_all()
    db.session.add_all([User("Ada", [Post("Notes")]), Event("start")])
    db.session.commit()
with app.app_context():
    ada = db.get_or_404(User, 1)
    assert ada.posts[0].body == "Notes"
    assert db.paginate(db.select(User)).items == [ada]
    assert db.session.get(Event, 1).kind == "start"
    assert db.session.get_bind(Event) is db.engines["other"]
