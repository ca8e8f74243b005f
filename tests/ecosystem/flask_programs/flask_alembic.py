"""Flask-Alembic: two migrations of two databases, generated, run, undone."""

import os
from itertools import count
from pathlib import Path

import sqlalchemy as sa
from flask import Flask
from flask.cli import FlaskGroup
from flask_alembic import Alembic

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config.update(
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
    SQLALCHEMY_BINDS={"other": os.environ["OTHER_DATABASE_URL"]},
    ALEMBIC={"script_location": str(Path.cwd() / "migrations")},
)
db = SQLAlchemy(app)


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)


class Event(db.Model):
    __bind_key__ = "other"
    id = db.Column(db.Integer, primary_key=True)


def tables(key):
    return set(sa.inspect(db.engines[key]).get_table_names()) - {"alembic_version"}


def columns(table, key):
    return {column["name"] for column in sa.inspect(db.engines[key]).get_columns(table)}


alembic = Alembic(
    app, metadatas={"default": db.metadata, "other": db.metadatas["other"]}
)
alembic.rev_id = map(str, count()).__next__  # by default the time, in seconds

with app.app_context():
    alembic.revision("make tables")
    alembic.upgrade()
    assert (tables(None), tables("other")) == ({"user"}, {"event"})

User.__table__.append_column(sa.Column("name", sa.String(30)))
Event.__table__.append_column(sa.Column("at", sa.DateTime))
with app.app_context():
    alembic.revision("more columns")
    alembic.upgrade()
    assert columns("user", None) == {"id", "name"}
    assert columns("event", "other") == {"id", "at"}

with app.app_context():
    alembic.downgrade()
    assert columns("user", None) == columns("event", "other") == {"id"}
    alembic.downgrade("base")
    assert tables(None) == tables("other") == set()

# One database, which it finds by itself.
app = Flask(__name__)
app.config.update(
    SQLALCHEMY_DATABASE_URI=os.environ["OTHER_DATABASE_URL"],
    ALEMBIC={"script_location": str(Path.cwd() / "one")},
)
db = SQLAlchemy(app)


class Order(db.Model):
    id = db.Column(db.Integer, primary_key=True)


alembic = Alembic(app)
with app.app_context():
    with db.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE alembic_version"))
    alembic.revision("make orders")
flask = FlaskGroup(create_app=lambda: app)
result = app.test_cli_runner().invoke(flask, ["db", "upgrade"])
assert result.exit_code == 0, (result.output, result.exception)
with app.app_context():
    assert tables(None) == {"order"}
    assert alembic.compare_metadata() == []
    alembic.downgrade("base")
    assert tables(None) == set()
