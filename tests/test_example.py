"""The example site, driven as its visitors do: both apps over HTTP, and the websocket."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import websockets
from conftest import DATABASES
from examples.catalogue import flask_app, quart_app, seed
from examples.catalogue.models import db
from support.apps import serve
from support.databases import Backend

from dualchemy.urls import for_api

MODULES = ["json", "textwrap", "string", "html", "bisect"]
APPS = {"quart": quart_app.create_app, "flask": flask_app.create_app}
BACKENDS = pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")


def config_for(backend: Backend) -> dict[str, Any]:
    bind: dict[str, Any] = {"url": backend.url}
    if not backend.is_server:
        bind["pragmas"] = {"journal_mode": "wal", "foreign_keys": True}
    return {"SQLALCHEMY_BINDS": {None: bind}, "SECRET_KEY": "test"}


class Catalogue:
    """Both apps on one seeded database."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.apps = {name: create(config) for name, create in APPS.items()}
        with self.apps["flask"].app_context():
            self.count = seed.fill(MODULES)

    @asynccontextmanager
    async def client(self, name: str) -> AsyncIterator[httpx.AsyncClient]:
        async with serve(self.apps[name]) as client:
            client.follow_redirects = True
            yield client

    def dispose(self) -> None:
        for app in self.apps.values():
            app.extensions["dualchemy"].engines.dispose_sync()


@pytest.fixture
def catalogue(backend: Backend) -> Any:
    """A catalogue that the test may change."""
    made = Catalogue(config_for(backend))
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def seeded(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Any:
    """Make the catalogue of a backend, once for all tests."""
    databases = request.config.stash[DATABASES]
    made: dict[str, Catalogue] = {}

    def catalogue_of(backend: Backend) -> Catalogue:
        if backend.name not in made:
            folder = tmp_path_factory.mktemp("catalogue")
            url = databases.empty(backend.name, "catalogue", folder)
            made[backend.name] = Catalogue(config_for(replace(backend, url=url)))
        return made[backend.name]

    yield catalogue_of
    for each in made.values():
        each.dispose()


@pytest.fixture
def isolated(request: pytest.FixtureRequest, backend: Backend, seeded: Any) -> Any:
    """The catalogue of all tests, of which one app is isolated. Another connection sees
    nothing of what it does.
    """
    catalogue = seeded(backend)
    name = request.getfixturevalue("name")
    before = content(catalogue)
    with db.sync.isolation(catalogue.apps[name]):
        yield catalogue
        assert content(catalogue) == before
    assert content(catalogue) == before


def content(catalogue: Catalogue) -> dict[str, list[Any]]:
    """Read all tables, past Dualchemy."""
    url = sa.make_url(catalogue.config["SQLALCHEMY_BINDS"][None]["url"])
    engine = sa.create_engine(for_api(url, "sync", "test"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        return {
            table.name: [
                *map(
                    tuple,
                    connection.execute(
                        sa.text(f"SELECT * FROM {table.name} ORDER BY 1")
                    ),
                )
            ]
            for table in db.metadata.sorted_tables
        }


async def entry_id(client: httpx.AsyncClient, name: str) -> int:
    found = (await client.get("/api/entries", params={"q": name})).json()["items"]
    return next(int(entry["id"]) for entry in found if entry["name"] == name)


@BACKENDS
@pytest.mark.parametrize("name", APPS)
async def test_a_visit(isolated: Catalogue, name: str) -> None:
    """Search, read, tag, and leave, change and delete a note."""
    async with isolated.client(name) as client:
        page = await client.get("/", params={"q": "json.dump", "kind": "function"})
        assert page.status_code == 200
        assert "json.dumps" in page.text
        assert "textwrap" not in page.text
        url = f"/entries/{await entry_id(client, 'json.dumps')}"
        assert "Serialize" in (await client.get(url)).text

        tagged = await client.post(f"{url}/tags", data={"name": " Often Used! "})
        assert ">often-used</a>" in tagged.text
        assert "json.dumps" in (await client.get("/?tag=often-used")).text
        again = await client.post(f"{url}/tags", data={"name": "often-used"})
        assert again.text.count(">often-used</a>") == 1

        note = {"author": "Ada", "body": "Use <indent> to read it."}
        noted = await client.post(f"{url}/notes", data=note)
        assert "Use &lt;indent&gt; to read it." in noted.text
        for _ in range(100):  # the background task of the Quart app
            shown = (await client.get(f"/api{url}")).json()
            if shown["note_count"]:
                break
            await asyncio.sleep(0.02)
        assert shown["note_count"] == 1

        edit = re.search(r"/notes/\d+/edit", noted.text)
        assert edit is not None
        assert "Use &lt;indent&gt;" in (await client.get(edit[0])).text
        changed = await client.post(edit[0], data={**note, "body": "Changed."})
        assert "Changed." in changed.text
        deleted = await client.post(edit[0].replace("edit", "delete"))
        assert "Changed." not in deleted.text
        assert "No notes yet." in deleted.text

        remove = re.search(r"/entries/\d+/tags/\d+/delete", tagged.text)
        assert remove is not None
        assert "often-used" not in (await client.post(remove[0])).text


@pytest.mark.backends("sqlite", "postgresql")
@pytest.mark.parametrize("name", APPS)
class TestBadInput:
    async def test_notes(self, isolated: Catalogue, name: str) -> None:
        async with isolated.client(name) as client:
            url = f"/entries/{await entry_id(client, 'json')}"
            for data, message in (
                ({"author": "", "body": "x"}, "Please give your name."),
                ({"author": "a" * 41, "body": "x"}, "at most 40 characters"),
                ({"author": "Ada", "body": " \0 "}, "Please write something."),
                ({"author": "Ada", "body": "x" * 2001}, "at most 2,000 characters"),
            ):
                page = await client.post(f"{url}/notes", data=data)
                assert page.status_code == 422
                assert message in page.text
                answer = await client.post(f"/api{url}/notes", json=data)
                assert answer.status_code == 422
                assert message in json.dumps(answer.json()["errors"])
            ok = await client.post(f"{url}/notes", data={"author": "Ada", "body": "x"})
            edit = re.search(r"/notes/\d+/edit", ok.text)
            assert edit is not None
            page = await client.post(edit[0], data={"author": "Ada", "body": ""})
            assert page.status_code == 422
            answer = await client.post(f"/api{url}/notes", json=["not", "an object"])
            assert answer.status_code == 422
            answer = await client.post(
                f"/api{url}/notes",
                content="{",
                headers={"Content-Type": "application/json"},
            )
            assert (answer.status_code, answer.json()) == (
                400,
                {"error": "Bad Request"},
            )

    @pytest.mark.parametrize(
        "query",
        ["page=abc", "page=0", "page=-1", "page=99999", "page=" + "9" * 25, "page=%00"],
    )
    async def test_pages(self, isolated: Catalogue, name: str, query: str) -> None:
        async with isolated.client(name) as client:
            page = await client.get(f"/?{query}")
            assert page.status_code == 404
            assert "<h1>Not Found</h1>" in page.text
            answer = await client.get(f"/api/entries?{query}")
            assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})

    async def test_searches(self, isolated: Catalogue, name: str) -> None:
        async with isolated.client(name) as client:
            for text in (
                "%",
                "_",
                "'",
                '"',
                "\\",
                "\0",
                "<b>",
                "ü",
                "'; --",
                "x" * 500,
            ):
                page = await client.get("/", params={"q": text, "kind": text})
                assert page.status_code == 200
                assert "<b>ü" not in page.text
            found = (await client.get("/api/entries", params={"q": "100%"})).json()
            assert found["total"] == 0

    async def test_what_is_not_there(self, isolated: Catalogue, name: str) -> None:
        async with isolated.client(name) as client:
            for method, path in (
                *(("GET", "/entries/999999"), ("GET", "/notes/1/edit"), ("GET", "/x")),
                *(("POST", "/notes/1/delete"), ("POST", "/entries/999999/tags")),
                *(("POST", "/entries/999999/tags/1/delete"), ("GET", "/api/entries/0")),
            ):
                assert (await client.request(method, path)).status_code == 404
            note = {"author": "Ada", "body": "x"}
            for path in ("/entries/999999/notes", "/api/entries/999999/notes"):
                answer = await client.post(path, data=note, json=note)
                assert answer.status_code in {404, 422, 415}
            answer = await client.post("/api/entries/999999/notes", json=note)
            assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})


@pytest.mark.backends("sqlite")
@pytest.mark.parametrize("name", APPS)
async def test_paging(isolated: Catalogue, name: str) -> None:
    async with isolated.client(name) as client:
        first = (await client.get("/api/entries?per_page=7")).json()
        assert first["total"] == isolated.count
        assert first["pages"] == -(-isolated.count // 7)
        names = []
        for number in range(1, first["pages"] + 1):
            page = await client.get(f"/api/entries?per_page=7&page={number}")
            names += [entry["name"] for entry in page.json()["items"]]
        assert len(set(names)) == isolated.count
        page = await client.get("/?q=json&page=1")
        assert 'aria-current="page"' in page.text
        answer = await client.get("/api/entries?per_page=7&q=e")
        following = await client.get(answer.links["next"]["url"])
        assert following.json()["page"] == 2
        assert following.json()["total"] == answer.json()["total"]


@pytest.mark.backends("sqlite", "postgresql")
@pytest.mark.parametrize("name", APPS)
async def test_notes_are_turned_by_cursor(isolated: Catalogue, name: str) -> None:
    async with isolated.client(name) as client:
        url = f"/entries/{await entry_id(client, 'json')}"
        for number in range(50):
            note = {"author": "Ada", "body": f"No. {number}."}
            await client.post(f"/api{url}/notes", json=note)
        seen: list[str] = []
        while url:
            text = (await client.get(url)).text
            seen += re.findall(r"No\. (\d+)\.", text)
            older = re.search(r'<a href="([^"]*)" rel="next">Older</a>', text)
            url = unescape(older[1]) if older else ""
        assert [int(number) for number in seen] == [*range(49, -1, -1)]
        bad = await client.get(f"/entries/{await entry_id(client, 'json')}?cursor=x")
        assert bad.status_code == 400
        assert "Begin again at the first page." in bad.text


@BACKENDS
@pytest.mark.parametrize("name", ["quart"])
async def test_note_appears_on_the_websocket(isolated: Catalogue, name: str) -> None:
    async with isolated.client(name) as client:
        live = await client.get("/live")
        after = re.search(r'data-after="(\d+)" data-socket="([^"]+)"', live.text)
        assert after is not None
        base = client.base_url
        url = f"ws://{base.host}:{base.port}{after[2]}?after={after[1]}"
        async with websockets.connect(url, proxy=None) as socket:
            path = f"/api/entries/{await entry_id(client, 'json')}/notes"
            note = {"author": "Ada", "body": "Hello"}
            made = await client.post(path, json=note)
            shown = json.loads(await asyncio.wait_for(socket.recv(), 10))
            assert shown["id"] == made.json()["id"]


@BACKENDS
async def test_note_made_on_flask_appears_on_quarts_websocket(
    catalogue: Catalogue,
) -> None:
    async with catalogue.client("quart") as quart, catalogue.client("flask") as flask:
        live = await quart.get("/live")
        after = re.search(r'data-after="(\d+)" data-socket="([^"]+)"', live.text)
        assert after is not None
        assert 'data-socket=""' in (await flask.get("/live")).text
        url = f"ws://{quart.base_url.host}:{quart.base_url.port}{after[2]}?after={after[1]}"
        async with websockets.connect(url, proxy=None) as socket:
            for client, author in ((flask, "Flask"), (quart, "Quart")):
                path = f"/api/entries/{await entry_id(client, 'json')}/notes"
                made = await client.post(path, json={"author": author, "body": "Hello"})
                assert made.status_code == 201
                note = json.loads(await asyncio.wait_for(socket.recv(), 10))
                assert (note["author"], note["entry"]) == (author, "json")
                assert note["id"] == made.json()["id"]
            pool = catalogue.apps["quart"].extensions["dualchemy"].engines
            engine = pool.aio().map[None]
            await asyncio.sleep(0.1)
            assert engine.pool.checkedout() == 0  # between two messages
        notes = (await flask.get("/api/notes?after=0")).json()
        assert [note["author"] for note in notes] == ["Flask", "Quart"]


@BACKENDS
def test_two_seeds_at_once(backend: Backend) -> None:
    app = flask_app.create_app(config_for(backend))
    counts: list[int] = []
    start = threading.Barrier(2)

    def work() -> None:
        with app.app_context():
            start.wait()
            counts.append(seed.fill(MODULES))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    app.extensions["dualchemy"].engines.dispose_sync()
    assert sorted(map(bool, counts)) == [False, True]


@pytest.mark.backends("sqlite")
@pytest.mark.parametrize("name", APPS)
def test_seed_command(backend: Backend, name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(seed, "module_names", lambda: set(MODULES))
    app = APPS[name](config_for(backend))
    runner = app.test_cli_runner()

    first, second = (runner.invoke(args=["seed"]) for _ in range(2))

    app.extensions["dualchemy"].engines.dispose_sync()
    assert first.exception is None, first.exception
    assert re.search(r"[1-9]\d+ entries added", first.output)
    assert "0 entries added" in second.output


def test_the_library_has_several_thousand_entries() -> None:
    names = seed.module_names()
    assert len(names) > 150
    rows = [
        row for name in ("asyncio", "os", "typing") for row in seed.entries_of(name)
    ]
    assert {row["kind"] for row in rows} == {"module", "class", "function", "method"}
    assert len(rows) > 300
    assert list(seed.entries_of("no_such_module")) == []


class TestProgram:
    """``python -m examples.catalogue``."""

    @pytest.mark.skipif(sys.platform == "win32", reason="ends by POSIX signals")
    def test_seeds_serves_and_stops(self, tmp_path: Path) -> None:
        port = free_port()
        process = start_program(tmp_path, "--only", "quart", "--port", str(port))
        try:
            wait_for(f"http://127.0.0.1:{port}/api/entries")
            found = httpx.get(f"http://127.0.0.1:{port}/api/entries", trust_env=False)
            assert found.json()["total"] > 3000
        finally:
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert "entries stored." in output
        assert f"Quart  serves http://127.0.0.1:{port}/" in output
        assert "Reading the library" in errors
        assert "100 %" in errors
        assert "Traceback" not in errors
        assert (tmp_path / "catalogue.db").exists()

    def test_url_that_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", "nonsense")
        process = start_program(tmp_path, "--only", "flask", "--port", str(free_port()))
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 1
        assert errors.startswith("SQLALCHEMY_BINDS[None][\"url\"]: 'nonsense' is not a")
        assert "Traceback" not in errors

    def test_port_in_use(self, tmp_path: Path) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            process = start_program(tmp_path, "--only", "flask", "--port", str(port))
            _, errors = process.communicate(timeout=20)
        assert process.returncode == 1
        assert errors.strip() == (
            f"Port {port} is in use; try --only NAME --port NUMBER."
        )


def start_program(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    root = Path(__file__).parent.parent
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); import runpy;"
        " runpy.run_module('examples.catalogue', run_name='__main__')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(url: str) -> None:
    import time

    for _ in range(600):
        try:
            httpx.get(url, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)
