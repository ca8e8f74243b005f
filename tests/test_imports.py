"""Nobody pays for what they do not use: seen in fresh interpreters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dualchemy

PACKAGE = Path(dualchemy.__file__).parent
LAYERS = [
    {"__init__"},
    {"flask", "quart", "impersonation"},
    {"extension"},
    {"sync_api", "async_api"},
    {"testing"},
    {"models"},
    {"lookup", "query", "schema", "tables"},
    {"async_sessions"},
    {"sessions"},
    {"signals", "recording", "async_scope"},
    {"scope"},
    {"engines", "pagination", "naming"},
    {"cli", "loops"},
    {"engine_map"},
    {"config", "connections", "lazy_loading", "awaiting", "routing", "frameworks"},
    {"pools", "shielding"},
    {"urls"},
    {"errors"},
]


def run(code: str) -> str:
    """Run a program, with warnings as errors, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_flask_user_imports_nothing_async_and_no_driver() -> None:
    code = """
import sys
from flask import Flask
from dualchemy.flask import SQLAlchemy
app = Flask("shop")
app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql://127.0.0.1/shop"
app.config["SQLALCHEMY_BINDS"] = {"a": "mysql://127.0.0.1/a", "b": "sqlite://"}
db = SQLAlchemy(app)
with app.app_context():
    pass
unwanted = ("quart", "sqlalchemy.ext.asyncio", "asyncpg", "psycopg", "aiosqlite",
            "asyncmy", "pymysql", "alembic", "greenlet", "sqlalchemy.dialects.mysql")
print([name for name in unwanted if name in sys.modules and name not in already])
"""
    preamble = "import sys, flask, sqlalchemy.orm; already = set(sys.modules)\n"
    assert run(preamble + code) == "[]"


def test_flask_user_imports_little() -> None:
    """Twelve modules of the library, and no other."""
    code = """
import sys, flask, sqlalchemy.orm
before = set(sys.modules)
from dualchemy.flask import SQLAlchemy
new = set(sys.modules) - before
print(len(new), sorted(name for name in new if not name.startswith("dualchemy")))
"""
    number, others = run(code).split(" ", 1)
    assert int(number) <= 12
    assert others == "[]"


@pytest.mark.parametrize("module", ["dualchemy", "dualchemy.flask", "dualchemy.quart"])
def test_each_public_name_is_found(module: str) -> None:
    """Some are imported when they are asked for, in an interpreter of its own."""
    code = f"""
import {module} as module
print([name for name in module.__all__ if getattr(module, name, None) is None])
print([name for name in module.__all__ if name not in dir(module)])
from {module} import *
print([name for name in module.__all__ if globals()[name] is not getattr(module, name)])
print(getattr(module, "Nonsense", "no such name"))
"""
    assert run(code).splitlines() == ["[]", "[]", "[]", "no such name"]


def test_modules_that_come_late_are_found_as_attributes() -> None:
    code = """
import dualchemy
print(dualchemy.signals.models_committed is dualchemy.models_committed)
"""
    assert run(code) == "True"


def test_apps_may_be_initialised_in_several_threads() -> None:
    code = """
import sys, threading
from flask import Flask
from dualchemy import SQLAlchemy
sys.setswitchinterval(1e-5)
barrier = threading.Barrier(4)
def init(app):
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    barrier.wait()
    SQLAlchemy(app)
threads = [threading.Thread(target=init, args=[Flask("shop")]) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
from quart import Quart
app = Quart("shop")
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
SQLAlchemy(app)
print("served")
"""
    assert run(code) == "served"


def test_everything_but_quart_works_without_quart() -> None:
    code = """
import sys
sys.modules["quart"] = None
from flask import Flask
from sqlalchemy import text
from dualchemy import SQLAlchemy
app = Flask("shop")
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
db = SQLAlchemy(app)
with app.app_context():
    print(db.session.scalar(text("SELECT 7")))
"""
    assert run(code) == "7"


def test_flask_works_without_any_async_driver() -> None:
    code = """
import sys
for name in ("aiosqlite", "asyncpg", "asyncmy"):
    sys.modules[name] = None
from flask import Flask
from sqlalchemy import text
from dualchemy.flask import SQLAlchemy
app = Flask("shop")
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
db = SQLAlchemy(app)
with app.app_context():
    print(db.session.scalar(text("SELECT 7")))
"""
    assert run(code) == "7"


def test_program_ends_without_a_word() -> None:
    """No warning about open connections, no hanging thread, on either API."""
    code = """
import asyncio
from quart import Quart
from sqlalchemy import text
from dualchemy import SQLAlchemy
app = Quart("shop")
app.config["SQLALCHEMY_BINDS"] = {None: "sqlite://", "file": "sqlite:///app.db"}
app.instance_path = "."
db = SQLAlchemy(app)
async def main():
    async with app.app_context():
        await db.session.execute(text("SELECT 1"))
        db.sync.session.execute(text("SELECT 1"))
        async with db.engines["file"].connect() as connection:
            await connection.execute(text("SELECT 1"))
asyncio.run(main())
"""
    assert run(code.replace("sqlite:///app.db", "sqlite://")) == ""


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a module imports when it runs."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for inner in block.body
        for node in ast.walk(inner)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.level
            and id(node) not in typing_only
        ):
            names |= (
                {node.module} if node.module else {each.name for each in node.names}
            )
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem
)
def test_imports_point_down(path: Path) -> None:
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    for imported in imports_of(path):
        assert level[imported] > level[path.stem], f"{path.stem} imports {imported}"


def test_frameworks_import_nothing_of_the_library() -> None:
    for path in (PACKAGE / "frameworks").glob("*.py"):
        assert imports_of(path) <= {"base", "flask", "quart"}
