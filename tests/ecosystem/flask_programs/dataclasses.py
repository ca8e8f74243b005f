"""Dataclasses: models that are, in both of SQLAlchemy's ways, and as JSON."""

import os
from dataclasses import asdict, dataclass, field

from flask import Flask, jsonify
from sqlalchemy import Column, Integer, String
from sqlalchemy.orm import Mapped, MappedAsDataclass, mapped_column

from dualchemy import Model
from dualchemy.flask import SQLAlchemy


class Base(MappedAsDataclass, Model):
    pass


app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app, model_class=Base)


class User(Base):
    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    name: Mapped[str]
    admin: Mapped[bool] = mapped_column(default=False)


@db.Model.registry.mapped
@dataclass
class Tag:
    __table__ = db.Table(
        "tag", Column("id", Integer, primary_key=True), Column("name", String(30))
    )
    name: str
    id: int | None = field(default=None)


@app.get("/users")
def users():
    return jsonify(db.paginate(db.select(User).order_by(User.id)).items)


with app.app_context():
    db.create_all()
    db.session.add_all([User("Ada", admin=True), User(name="Grace"), Tag("new")])
    db.session.commit()
    assert db.session.get(User, 2) == User.query.filter_by(name="Grace").one()
    assert asdict(db.session.get(Tag, 1)) == {"name": "new", "id": 1}

assert app.test_client().get("/users").json == [
    {"id": 1, "name": "Ada", "admin": True},
    {"id": 2, "name": "Grace", "admin": False},
]
