"""What is exact without callgrind: modules that an import loads, and memory of a session.

``python -m benchmarks.speed.facts``, started in an environment of the contenders, prints
them as JSON.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

from .rows import ADVANCED, ALCHEMICAL, DUALCHEMY, FLOOR, FSA, LITE

IMPORTS = {
    FSA: "from flask_sqlalchemy import SQLAlchemy",
    LITE: "from flask_sqlalchemy_lite import SQLAlchemy",
    ADVANCED: "from advanced_alchemy.extensions.flask import AdvancedAlchemy",
    ALCHEMICAL: "from alchemical.flask import Alchemical",
    DUALCHEMY: "from dualchemy.flask import SQLAlchemy",
}
"""What an application writes. Some names are imported when they are asked for."""

SET_UP = """
from benchmarks.speed import contenders
contenders.FLASK[{name!r}](flask.Flask("benchmark"), "sqlite://", {{}})
"""
UNWANTED = (
    "quart",
    "asyncio",
    "sqlalchemy.ext.asyncio",
    "greenlet",
    "alembic",
    "aiosqlite",
    "asyncpg",
    "psycopg",
)
SESSIONS = 2000


def modules(code: str) -> dict[str, Any]:
    """Return how many modules some code loads on top of Flask and SQLAlchemy's ORM."""
    program = f"""
import json, sys
import flask, sqlalchemy.orm
before = set(sys.modules)
{code}
new = [each for each in sys.modules if each not in before]
new = [each for each in new if each.split(".")[0] != "benchmarks"]
print(json.dumps({{
    "modules": len(new), "unwanted": [each for each in new if each in {UNWANTED!r}]
}}))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def bytes_of(make: Callable[[], Any]) -> float:
    """Return the memory of one idle session."""
    make()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [make() for _ in range(SESSIONS)]
    gc.collect()
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return size / len(kept)


def memory() -> dict[str, dict[str, float]]:
    """Return the memory of idle sessions, of both APIs."""
    import sqlalchemy as sa
    from flask import Flask
    from sqlalchemy import orm
    from sqlalchemy.ext import asyncio as sa_asyncio

    from dualchemy import SQLAlchemy

    app = Flask("benchmark")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = SQLAlchemy(app)
    engine = sa.create_engine("sqlite://")
    async_engine = sa_asyncio.create_async_engine("sqlite+aiosqlite://")
    with app.app_context():
        return {
            "session": {
                FLOOR: bytes_of(orm.sessionmaker(engine)),
                DUALCHEMY: bytes_of(db.sync.sessionmaker),
            },
            "async session": {
                FLOOR: bytes_of(sa_asyncio.async_sessionmaker(async_engine)),
                DUALCHEMY: bytes_of(db.aio.sessionmaker),
            },
        }


if __name__ == "__main__":
    imported = {peer: modules(code) for peer, code in IMPORTS.items()}
    set_up = {peer: modules(SET_UP.format(name=peer)) for peer in IMPORTS}
    print(json.dumps({"imports": imported, "set up": set_up, "memory": memory()}))
