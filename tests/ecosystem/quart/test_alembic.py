"""Alembic used directly: an async ``env.py`` that imports the app and its ``db``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.databases import Backend

PROGRAM = """
import os
from FRAMEWORK import APP
from sqlalchemy.orm import Mapped, mapped_column
from dualchemy import Model, SQLAlchemy

class Base(Model):
    pass

db = SQLAlchemy(model_class=Base)

class User(Base):
    id: Mapped[int] = mapped_column(primary_key=True)

app = APP(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db.init_app(app)
"""

ENV = """
import asyncio
from alembic import context
from shop import app, db

def migrate(connection):
    context.configure(connection=connection, target_metadata=db.metadata)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    ENTER app.app_context():
        async with db.aio.engine.connect() as connection:
            await connection.run_sync(migrate)
            await connection.commit()

asyncio.run(main())
"""

TEMPLATE = """
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
from alembic import op
import sqlalchemy as sa

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
"""

SETTINGS = """
[alembic]
script_location = %(here)s/migrations
path_separator = os
prepend_sys_path = .
"""


# Several of its commands in one process, which takes less time.
RUN = """
import sys
from alembic.config import main

for command in sys.argv[1:]:
    main(argv=command.split())
"""


@pytest.fixture
def alembic(framework: str, backend: Backend, tmp_path: Path) -> Callable[..., str]:
    migrations = tmp_path / "migrations"
    (migrations / "versions").mkdir(parents=True)
    enter = {"quart": "async with", "flask": "with"}[framework]
    (migrations / "env.py").write_text(ENV.replace("ENTER", enter))
    (migrations / "script.py.mako").write_text(TEMPLATE)
    (tmp_path / "alembic.ini").write_text(SETTINGS)
    program = PROGRAM.replace("FRAMEWORK", framework)
    (tmp_path / "shop.py").write_text(program.replace("APP", framework.capitalize()))

    def run(*commands: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", RUN, *commands],
            cwd=tmp_path,
            env={**os.environ, "DATABASE_URL": backend.url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        return done.stdout

    return run


@pytest.mark.backends("sqlite", "postgresql")
def test_two_migrations_up_and_down(
    framework: str, backend: Backend, alembic: Callable[..., str], tmp_path: Path
) -> None:
    url = backend.url.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url, poolclass=sa.NullPool)

    def columns() -> list[str]:
        inspector = sa.inspect(engine)
        if not inspector.has_table("user"):
            return []
        return [column["name"] for column in inspector.get_columns("user")]

    alembic("revision --autogenerate -m users", "upgrade head")
    assert columns() == ["id"]

    program = tmp_path / "shop.py"
    column = "    id: Mapped[int] = mapped_column(primary_key=True)\n"
    program.write_text(
        program.read_text().replace(column, f"{column}    name: Mapped[str | None]\n")
    )
    out = alembic("revision --autogenerate -m names", "upgrade head", "check")
    assert "No new upgrade operations" in out
    assert columns() == ["id", "name"]
    alembic("downgrade -1")
    assert columns() == ["id"]
    alembic("downgrade base")
    assert columns() == []
