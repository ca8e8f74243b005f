"""A database of its own for a process of a test run."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from support.databases import Backend

from dualchemy import ConfigError
from dualchemy.testing.databases import own_database
from dualchemy.urls import for_api

servers = pytest.mark.backends("postgresql", "mariadb")


def run(url: str, *statements: str) -> list[Any]:
    """Run statements, and return the rows of the last one."""
    engine = sa.create_engine(
        for_api(sa.make_url(url), "sync", "test"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )
    with engine.connect() as connection:
        for statement in statements:
            result = connection.exec_driver_sql(statement)
        return list(result.scalars()) if result.returns_rows else []


@pytest.fixture(params=["sync driver", "async driver"])
def drivers(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """Which drivers are there: those of both APIs, or of the async one alone."""
    if request.param == "async driver":
        for module in (
            "psycopg",
            "psycopg2",
            "pg8000",
            "pymysql",
            "MySQLdb",
            "mariadb",
        ):
            monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, "mysql", None)
    return monkeypatch


@servers
class TestOnAServer:
    async def test_is_there_for_a_while(
        self, backend: Backend, drivers: pytest.MonkeyPatch
    ) -> None:
        with own_database(backend.url, "gw0") as url:
            drivers.undo()
            assert make_url(url).database.startswith(  # type: ignore[union-attr]
                f"{make_url(backend.url).database}_gw0_"
            )
            assert run(url, "SELECT 1") == [1]
        with pytest.raises(sa.exc.OperationalError):
            run(url, "SELECT 1")

    async def test_error_of_the_server_is_told(
        self, backend: Backend, drivers: pytest.MonkeyPatch
    ) -> None:
        with own_database(backend.url, "gw0"):
            with pytest.raises(sa.exc.DBAPIError, match="exists"):
                with own_database(backend.url, "gw0"):
                    pytest.fail("there cannot be two of a name")

    def test_long_names_end_with_the_process(self, backend: Backend) -> None:
        name = "a" * 80
        template = make_url(backend.url).set(database=name)
        with own_database(template, "gw0") as one, own_database(template, "gw1") as two:
            assert one != two
            assert run(one, "SELECT 1") == run(two, "SELECT 1") == [1]


@pytest.mark.backends("postgresql")
def test_copy_of_a_template(backend: Backend) -> None:
    run(
        backend.url, "CREATE TABLE city (name text)", "INSERT INTO city VALUES ('Oslo')"
    )
    template = make_url(backend.url).database
    with own_database(backend.url, "gw0", template_database=template) as url:
        assert run(url, "SELECT name FROM city") == ["Oslo"]


@pytest.mark.backends("postgresql")
def test_is_dropped_though_something_is_connected(backend: Backend) -> None:
    with own_database(backend.url, "gw0") as url:
        engine = sa.create_engine(for_api(make_url(url), "sync", "test"))
        connection = engine.connect()
    with pytest.raises(sa.exc.OperationalError):
        run(url, "SELECT 1")
    connection.invalidate()
    engine.dispose()


@pytest.mark.parametrize("fails", [False, True])
def test_files_of_sqlite_are_removed(tmp_path: Path, fails: bool) -> None:
    try:
        with own_database(f"sqlite:///{tmp_path / 'app.db'}", "gw0") as url:
            path = make_url(url).database
            with closing(sqlite3.connect(str(path))) as connection:
                connection.execute("PRAGMA journal_mode = wal")
                connection.execute("CREATE TABLE city (name)")
                assert len(list(tmp_path.iterdir())) == 3
                # So they would be left behind if it ended without being closed.
                files = {each: each.read_bytes() for each in tmp_path.iterdir()}
            for file, content in files.items():
                file.write_bytes(content)
            if fails:
                raise LookupError("of the test run")
    except LookupError:
        assert fails
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_in_memory_sqlite_is_an_app_s_own_as_it_is(url: str) -> None:
    with own_database(url, "gw0") as own:
        assert make_url(own) == make_url(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "postgresql://me:s3cret@localhost",
            "database_url: 'postgresql://me:***@localhost' names no database. Add a name"
            " for the new one to begin with.",
        ),
        ("postgresql:me:s3cret@localhost", "database_url: "),
    ],
)
def test_url_that_will_not_do(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught, own_database(url, "gw0"):
        pytest.fail("nothing was made")
    assert str(caught.value).startswith(message)
    assert "s3cret" not in str(caught.value)
