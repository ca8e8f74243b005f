"""The pytest plug-in, in test runs of its own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.databases import Backend

from dualchemy.urls import for_api

pytest_plugins = ["pytester"]

SRC = Path(__file__).parent.parent / "src"

CONFTEST = """
import asyncio
import os

import pytest
import sqlalchemy as sa
from flask import Flask
from quart import Quart
from sqlalchemy.orm import Mapped, mapped_column

from dualchemy import Model, SQLAlchemy


class Base(Model):
    pass


db = SQLAlchemy(model_class=Base)


class User(Base):
    __tablename__ = "user_"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40), unique=True)


SCOPE = {scope!r}


@pytest.fixture(scope="session")
def app(database_url):
    app = {framework}("site")
    app.config["SQLALCHEMY_DATABASE_URI"] = database_url({url!r})
    db.init_app(app)

    async def create():
        async with app.app_context():
            await db.create_all()

    if {framework} is Quart:
        asyncio.run(create())
    else:
        with app.app_context():
            db.create_all()

    @app.get("/add/<name>")
    def add(name):
        with db.sync.sessionmaker.begin() as session:
            session.add(User(name=name))
        return "added"

    if {framework} is Quart:

        async def add(name):
            db.session.add(User(name=name))
            await db.session.commit()
            return "added"

        app.view_functions["add"] = add
    yield app
    app.extensions["dualchemy"].engines.dispose_sync()
"""

ASYNC_TESTS = """
import pytest
import sqlalchemy as sa
from conftest import User, db

NAMES = sa.select(User.name).order_by(User.name)


@pytest.mark.parametrize("n", range(3))
{mark}
async def test_client(app, db_session, n):
    assert (await db_session.scalars(NAMES)).all() == []
    for name in "ab":
        response = await app.test_client().get(f"/add/{{name}}")
        assert response.status_code == 200
    assert (await db_session.scalars(NAMES)).all() == ["a", "b"]
    db_session.add(User(name="c"))
    await db_session.flush()


@pytest.mark.parametrize("n", range(2))
{mark}
async def test_context(app_context, async_db_session, n):
    db.session.add(User(name="a"))
    await db.session.commit()
    assert (await db.session.scalars(NAMES)).all() == ["a"]
    async_db_session.add(User(name="b"))
    await async_db_session.commit()
    assert (await db.session.scalars(NAMES)).all() == ["a", "b"]


{mark}
async def test_unused(app, db_session, app_context):
    pass
"""

SYNC_TESTS = """
import pytest
import sqlalchemy as sa
from conftest import User, db

NAMES = sa.select(User.name).order_by(User.name)


@pytest.mark.parametrize("n", range(3))
def test_client(app, db_session, n):
    assert db_session.scalars(NAMES).all() == []
    for name in "ab":
        assert app.test_client().get(f"/add/{name}").status_code == 200
    assert db_session.scalars(NAMES).all() == ["a", "b"]
    db_session.add(User(name="c"))
    db_session.flush()


@pytest.mark.parametrize("n", range(3))
def test_context(app_context, sync_db_session, n):
    db.session.add(User(name="a"))
    db.session.commit()
    assert sync_db_session.scalars(NAMES).all() == ["a"]
"""

SYNC = ("-p", "no:asyncio", "-p", "no:anyio")


@pytest.fixture
def run(
    pytester: pytest.Pytester, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    """Run tests in a process of their own, with the plug-in as it is installed."""
    is_installed = any(
        each.value == "dualchemy.testing.pytest_plugin"
        for each in entry_points(group="pytest11")
    )
    monkeypatch.setenv("PYTHONPATH", str(SRC))

    def run(
        framework: str,
        tests: str,
        *arguments: str,
        ini: str = "dualchemy_isolation = true",
        scope: str = "function",
    ) -> pytest.RunResult:
        pytester.makeconftest(
            CONFTEST.format(framework=framework, url=backend.url, scope=scope)
        )
        pytester.makepyfile(test_it=tests)
        pytester.makeini(f"[pytest]\nfilterwarnings = error\n{ini}\n")
        if not is_installed:
            arguments = ("-p", "dualchemy.testing.pytest_plugin", *arguments)
        return pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *arguments
        )

    return run


class TestIsolation:
    def test_flask(self, run: Callable[..., pytest.RunResult]) -> None:
        run("Flask", SYNC_TESTS, *SYNC).assert_outcomes(passed=6)

    @pytest.mark.parametrize("scope", ["function", "session"])
    def test_pytest_asyncio(
        self, run: Callable[..., pytest.RunResult], scope: str
    ) -> None:
        ini = (
            "dualchemy_isolation = true\n"
            "asyncio_mode = auto\n"
            "asyncio_default_fixture_loop_scope = function\n"
            f"asyncio_default_test_loop_scope = {scope}\n"
        )
        result = run("Quart", ASYNC_TESTS.format(mark=""), ini=ini)
        result.assert_outcomes(passed=6)

    # The drivers had their turn with pytest-asyncio.
    @pytest.mark.backends("sqlite", "postgresql")
    @pytest.mark.parametrize("scope", ["function", "session"])
    def test_anyio(self, run: Callable[..., pytest.RunResult], scope: str) -> None:
        fixture = (
            "import pytest\n"
            f"@pytest.fixture(scope={scope!r})\n"
            "def anyio_backend():\n    return 'asyncio'\n"
        )
        tests = ASYNC_TESTS.format(mark="@pytest.mark.anyio")
        if scope == "session":  # whose one task has no other context variables
            tests = tests.replace("app_context, ", "app, ").replace(
                "    db.session.add", "    async with app.app_context(): db.session.add"
            )
            tests = tests[: tests.index('@pytest.mark.parametrize("n", range(2))')]
        result = run("Quart", fixture + tests, "-p", "no:asyncio")
        result.assert_outcomes(passed=3 if scope == "session" else 6)


def databases_of(backend: Backend) -> set[str]:
    url = for_api(sa.make_url(backend.url), "sync", "test")
    catalogue = (
        "SELECT datname FROM pg_database"
        if "postgres" in backend.name
        else "SHOW DATABASES"
    )
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return set(connection.execute(sa.text(catalogue)).scalars())


@pytest.mark.backends("sqlite", "postgresql", "mariadb")
class TestParallel:
    def test_workers_have_a_database_each(
        self, run: Callable[..., pytest.RunResult], backend: Backend
    ) -> None:
        tests = SYNC_TESTS + (
            "\n\n@pytest.mark.parametrize('n', range(8))\n"
            "def test_url(app, n):\n"
            "    url = str(db.metadatas) and app.config['SQLALCHEMY_DATABASE_URI']\n"
            "    print('URL', url)\n"
            "    assert '_gw' in url\n"
        )
        result = run("Flask", tests, "-n2", "--dist=each", "-rP", *SYNC)
        result.assert_outcomes(passed=28)
        urls = {line for line in result.outlines if line.startswith("URL")}
        assert len(urls) == 2
        for url in urls:  # They were dropped.
            name = url.rpartition("/")[2]
            if backend.is_server:
                assert name not in databases_of(backend)
            else:
                assert not list(Path(url.partition("///")[2]).parent.glob(f"{name}*"))


@pytest.mark.backends("sqlite")
class TestOptions:
    def test_without_the_option_nothing_is_isolated(
        self, run: Callable[..., pytest.RunResult]
    ) -> None:
        tests = (
            "from conftest import User, db\n"
            "def test_one(app):\n"
            "    assert app.test_client().get('/add/a').status_code == 200\n"
            "def test_two(app, db_isolation):\n"
            "    with db.sync.sessionmaker(app=app) as session:\n"
            "        assert session.query(User).count() == 1\n"
            "        assert app.test_client().get('/add/b').status_code == 200\n"
            "def test_three(app):\n"
            "    with db.sync.sessionmaker(app=app) as session:\n"
            "        assert session.query(User).count() == 1\n"
        )
        run("Flask", tests, *SYNC, "-p", "no:randomly", ini="").assert_outcomes(
            passed=3
        )

    def test_tests_without_an_app_are_left_alone(
        self, run: Callable[..., pytest.RunResult]
    ) -> None:
        tests = "def test_one():\n    assert True\n"
        run("Flask", tests, *SYNC, "--setup-show").stdout.no_fnmatch_line("*SETUP*app*")

    def test_app_without_db(self, run: Callable[..., pytest.RunResult]) -> None:
        tests = (
            "import pytest\nfrom flask import Flask\n"
            "@pytest.fixture\ndef app():\n    return Flask('bare')\n"
            "def test_one(app):\n    pass\n"
        )
        result = run("Flask", tests, *SYNC)
        result.stdout.fnmatch_lines(["*'db.init_app' was not called*"])
