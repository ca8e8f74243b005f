"""Alembic by itself: an env.py that imports the app's db; two migrations, up and down."""

import os
import sys
import types
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from flask import Flask

from dualchemy.flask import SQLAlchemy

ENV = """
from alembic import context
from shop import app, db

with app.app_context():
    with db.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=db.metadata)
        with context.begin_transaction():
            context.run_migrations()
"""

shop = sys.modules["shop"] = types.ModuleType("shop")
shop.app = app = Flask("shop")
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
shop.db = db = SQLAlchemy(app)


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)


def columns():
    with app.app_context():
        inspector = sa.inspect(db.engine)
        if not inspector.has_table("user"):
            return None
        return {column["name"] for column in inspector.get_columns("user")}


config = Config("alembic.ini")
command.init(config, "migrations")
Path("migrations/env.py").write_text(ENV)

command.revision(config, "make users", autogenerate=True)
command.upgrade(config, "head")
assert columns() == {"id"}
User.__table__.append_column(sa.Column("name", sa.String(30)))
command.revision(config, "name users", autogenerate=True)
command.upgrade(config, "head")
assert columns() == {"id", "name"}
command.check(config)
command.downgrade(config, "-1")
assert columns() == {"id"}
command.downgrade(config, "base")
assert columns() is None
with app.app_context():
    assert db.engine.pool.checkedout() == 0
