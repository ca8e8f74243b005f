"""Flask-Migrate: two migrations of one database and of two, generated, run, undone."""

import os
import warnings

import sqlalchemy as sa
from flask import Flask
from flask_migrate import Migrate

from dualchemy.flask import SQLAlchemy

# Of Flask-Migrate's env.py, which calls get_engine() first wherever it exists.
warnings.filterwarnings("ignore", "'get_engine' is deprecated", DeprecationWarning)
# Of its alembic.ini, which has no path_separator.
warnings.filterwarnings(
    "ignore", "No path_separator found in configuration", DeprecationWarning
)


def migrate(*arguments):
    done = app.test_cli_runner().invoke(args=["db", *arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def tables(key=None):
    with app.app_context():
        return set(sa.inspect(db.engines[key]).get_table_names())


def columns(table, key=None):
    with app.app_context():
        return {c["name"] for c in sa.inspect(db.engines[key]).get_columns(table)}


for binds in ({}, {"other": os.environ["OTHER_DATABASE_URL"]}):
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    if binds:
        app.config["SQLALCHEMY_BINDS"] = binds
    db = SQLAlchemy(app)
    Migrate(app, db, directory="several" if binds else "one")

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    if binds:

        class Event(db.Model):
            __bind_key__ = "other"
            id = db.Column(db.Integer, primary_key=True)

    migrate("init", *(["--multidb"] if binds else []))
    migrate("migrate", "-m", "make tables")
    migrate("upgrade")
    assert tables() == {"alembic_version", "user"}
    if binds:
        assert tables("other") == {"alembic_version", "event"}

    User.__table__.append_column(sa.Column("name", sa.String(30)))
    if binds:
        Event.__table__.append_column(sa.Column("at", sa.DateTime))
    migrate("migrate", "-m", "more columns")
    migrate("upgrade")
    assert columns("user") == {"id", "name"}
    if binds:
        assert columns("event", "other") == {"id", "at"}

    migrate("downgrade")
    assert columns("user") == {"id"}
    migrate("downgrade")
    assert tables() == {"alembic_version"}
    if binds:
        assert tables("other") == {"alembic_version"}
    migrate("upgrade")
    migrate("downgrade", "base")
    with app.app_context():
        for engine in db.engines.values():
            with engine.begin() as connection:
                connection.execute(sa.text("DROP TABLE alembic_version"))
