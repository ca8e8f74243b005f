"""A forked worker shares no connection with its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support.databases import Backend

PROGRAM = """
import asyncio, json, os, sys
from flask import Flask
from sqlalchemy import text
from dualchemy import SQLAlchemy

url, sql = sys.argv[1:]
app = Flask("site")
app.config["SQLALCHEMY_DATABASE_URI"] = url
db = SQLAlchemy(app)

async def ask_async():
    with app.app_context():
        async with db.aio.sessionmaker() as session:
            return (await session.execute(text(sql))).scalar()

def ask():
    with app.app_context():
        return db.session.execute(text(sql)).scalar()

loop = asyncio.new_event_loop()  # open while the process forks
before = [ask(), loop.run_until_complete(ask_async())]
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    found = [ask(), asyncio.run(ask_async()), ask()]
    # The loop came along. What ends with it in the parent does not end here.
    loop.run_until_complete(loop.shutdown_asyncgens())
    os.write(write, json.dumps(found).encode())
    with app.app_context():
        db.sync.dispose()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
child = json.loads(os.read(read, 1000))
after = [ask(), loop.run_until_complete(ask_async())]
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
print(json.dumps({"before": before, "child": child, "after": after}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")
def test_forked_process_connects_anew(backend: Backend) -> None:
    sql = (
        "SELECT connection_id()"
        if backend.name == "mariadb"
        else "SELECT pg_backend_pid()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, backend.url, sql],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["after"] == found["before"]  # the parent's connections live on
    assert not set(found["child"]) & set(found["before"])
    assert found["child"][0] == found["child"][2]  # and the child has a pool of its own


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.backends("sqlite-memory")
def test_forked_process_has_its_own_memory_database(backend: Backend) -> None:
    sql = "SELECT count(*) FROM sqlite_master"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, backend.url, sql],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["child"] == [0, 0, 0]


IN_A_TRANSACTION = """
import asyncio, os, sys
from flask import Flask
from sqlalchemy import text
from dualchemy import SQLAlchemy

app = Flask("site")
app.config["SQLALCHEMY_DATABASE_URI"] = sys.argv[1]
db = SQLAlchemy(app)

def child(work):
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return
    try:
        work()
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)

def look():
    assert db.session.execute(text("SELECT count(*) FROM thing")).scalar() == 0
    db.session.execute(text("INSERT INTO thing VALUES (2)"))
    db.session.rollback()
    db.session.remove()

with app.app_context():
    db.session.execute(text("CREATE TABLE thing (id INTEGER)"))
    db.session.commit()
    db.session.execute(text("INSERT INTO thing VALUES (1)"))
    child(look)
    child(db.session.commit)
    child(db.session.close)
    db.session.commit()
    assert db.session.execute(text("SELECT id FROM thing")).scalars().all() == [1]
    db.sync.dispose()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.backends("postgresql", "mariadb")
def test_fork_within_a_transaction_leaves_it_to_the_parent(backend: Backend) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_A_TRANSACTION, backend.url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
