"""Hypercorn, Uvicorn, Granian and ``quart run``, each as its own program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url
from support.databases import Backend

PROGRAM = """
import asyncio, os
from pathlib import Path
import psycopg
from quart import Quart
from sqlalchemy import func, select, text
from sqlalchemy.orm import Mapped, mapped_column
from dualchemy import Model, SQLAlchemy

class Base(Model):
    pass

db = SQLAlchemy(model_class=Base)

class Visit(Base):
    id: Mapped[int] = mapped_column(primary_key=True)

app = Quart(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db.init_app(app)

async def visit():
    db.session.add(Visit())
    await db.session.commit()
    return await db.session.scalar(select(func.count()).select_from(Visit))

@app.before_serving
async def create():
    await db.create_all()

@app.get("/")
async def count():
    return {"visits": await visit()}

@app.get("/slow")
async def slow():
    await db.session.execute(select(Visit))
    Path("running").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return {"visits": await visit()}

@app.after_serving
async def report():
    url = os.environ["DATABASE_URL"].replace("+psycopg", "")
    if not url.startswith("sqlite"):
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        Path("left").write_text(str(row[0]))
    await visit()  # opens a connection anew
    Path("stopped").touch()
"""

FIRST = """
async def first():
    async with app.app_context():
        await db.create_all()
        db.sync.session.execute(text("SELECT 1"))

asyncio.run(first())
"""

SERVERS = {
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:PORT", "shop:app"],
    "uvicorn": ["uvicorn", "--port", "PORT", "shop:app"],
    "granian": ["granian", "--interface", "asgi", "--port", "PORT", "shop:app"],
    "quart run": ["quart", "-A", "shop", "run", "--port", "PORT"],
}
NOISE = ("Warning", "Traceback", "Error", "never awaited", "never closed")


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


class Server:
    """A server's process, and what it says."""

    def __init__(self, command: list[str], folder: Path, url: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self._output = folder / "output"
        words = [word.replace("PORT", str(self.port)) for word in command]
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "always", "-m", *words],
                cwd=folder,
                env={**os.environ, "DATABASE_URL": url},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            timeout=30,
            trust_env=False,
        )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def get(self, path: str = "/") -> dict[str, Any]:
        response = self.client.get(path)
        assert response.status_code == 200, self.output
        return response.json()

    def listens(self) -> bool:
        assert self.process.poll() is None, self.output
        return self.connects()

    def connects(self) -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.port)) == 0

    def is_stopping(self) -> bool:
        # Granian goes on listening, but says so.
        return "Shutting down" in self.output or not self.connects()

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path, backend: Backend) -> Iterator[Callable[..., Server]]:
    servers = []

    def start(command: list[str], source: str = PROGRAM) -> Server:
        (tmp_path / "shop.py").write_text(source)
        servers.append(Server(command, tmp_path, backend.url))
        until(servers[-1].listens)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.backends("postgresql", "sqlite")
@pytest.mark.parametrize("name", SERVERS)
def test_serves_and_shuts_down(
    name: str, start: Any, backend: Backend, request: pytest.FixtureRequest
) -> None:
    server = start(SERVERS[name])
    assert server.get() == {"visits": 1}
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: server.get(), range(10)))
    assert max(answer["visits"] for answer in answers) == 11

    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(server.get, "/slow")
        until((server.folder / "running").exists)
        os.kill(server.process.pid, signal.SIGTERM)
        if name != "hypercorn":  # which says nothing, and whose parent listens on
            until(server.is_stopping)
        (server.folder / "go").touch()
        assert slow.result() == {"visits": 12}

    code = server.process.wait(30)
    # Uvicorn raises the signal again; Quart 0.23 says that it was asked to stop.
    expected = {"uvicorn": [-signal.SIGTERM], "quart run": [0, 3]}
    assert code in expected.get(name, [0]), server.output
    assert (server.folder / "stopped").exists()
    if backend.is_server:
        assert (server.folder / "left").read_text() == "0"
        postgresql = request.getfixturevalue("server")
        assert postgresql.connections(make_url(backend.url).database) == 0
    for noise in NOISE:
        assert noise not in server.output


def sockets(process: int) -> set[str]:
    """The sockets that a process has open."""
    links = [str(each.readlink()) for each in Path(f"/proc/{process}/fd").iterdir()]
    return {link for link in links if link.startswith("socket:")}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.backends("postgresql")
def test_reloader(start: Any) -> None:
    """The app connects when it is imported. From Quart 0.23 on a parent, which imports
    it too, starts the process that serves; before, the process begins anew.
    """
    source = PROGRAM + FIRST
    server = start([*SERVERS["quart run"], "--reload"], source)
    parent = server.process.pid

    def serving() -> int:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        return int(children or parent)

    assert server.get() == {"visits": 1}
    first = serving()
    before = sockets(first)
    assert before
    assert first == parent or not before & sockets(parent)

    program = server.folder / "shop.py"
    program.write_text(source.replace('"visits"', '"seen"'))
    os.utime(program, (time.time() + 10, time.time() + 10))  # a clock of whole seconds

    def is_new() -> bool:
        try:
            # A request that the reload cuts off is an error.
            return "seen" in server.client.get("/").text
        except httpx.TransportError:
            return False

    until(is_new)
    assert not before & sockets(serving())
    assert serving() == parent or not sockets(parent) & sockets(serving())

    os.killpg(parent, signal.SIGTERM)
    server.process.wait(30)
    for noise in NOISE:
        assert noise not in server.output
