"""One URL serves both APIs: which driver is chosen, and what is said if there is none."""

from __future__ import annotations

import importlib.util

import pytest
from sqlalchemy.dialects import registry
from sqlalchemy.engine import make_url

from dualchemy import ConfigError, MissingDriverError
from dualchemy.urls import API, for_api, normalize

SERVED = [
    # configured, on the sync API, on the async API
    ("sqlite://", "sqlite", "sqlite+aiosqlite"),
    ("sqlite+pysqlite://", "sqlite+pysqlite", "sqlite+aiosqlite"),
    ("sqlite+aiosqlite://", "sqlite+pysqlite", "sqlite+aiosqlite"),
    ("postgresql://", "postgresql+psycopg", "postgresql+asyncpg"),
    ("postgres://", "postgresql+psycopg", "postgresql+asyncpg"),
    ("postgresql+asyncpg://", "postgresql+psycopg", "postgresql+asyncpg"),
    ("postgresql+psycopg://", "postgresql+psycopg", "postgresql+psycopg"),
    ("postgresql+psycopg_async://", "postgresql+psycopg", "postgresql+psycopg_async"),
    ("postgresql+psycopg2://", "postgresql+psycopg2", "postgresql+asyncpg"),
    ("postgres+asyncpg://", "postgresql+psycopg", "postgresql+asyncpg"),
    ("mysql://", "mysql+pymysql", "mysql+asyncmy"),
    ("mysql+pymysql://", "mysql+pymysql", "mysql+asyncmy"),
    ("mysql+asyncmy://", "mysql+pymysql", "mysql+asyncmy"),
    ("mysql+aiomysql://", "mysql+pymysql", "mysql+aiomysql"),
    ("mariadb://", "mariadb+pymysql", "mariadb+asyncmy"),
    ("mariadb+asyncmy://", "mariadb+pymysql", "mariadb+asyncmy"),
    ("mssql+pyodbc://", "mssql+pyodbc", "mssql+aioodbc"),
    ("oracle+oracledb://", "oracle+oracledb", "oracle+oracledb"),
]
INSTALLED = {
    *("sqlite3", "aiosqlite", "psycopg", "psycopg2", "asyncpg", "pymysql", "asyncmy"),
    *("aiomysql", "pyodbc", "aioodbc", "oracledb"),
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The driver modules that can be found; a test may remove some."""
    found = set(INSTALLED)
    monkeypatch.setattr(
        "dualchemy.urls.find_spec", lambda name: object() if name in found else None
    )
    return found


@pytest.mark.parametrize(("configured", "sync", "aio"), SERVED)
def test_driver_of_each_api(
    installed: set[str], configured: str, sync: str, aio: str
) -> None:
    url = normalize(make_url(configured))

    assert for_api(url, "sync", "KEY").drivername == sync
    assert for_api(url, "async", "KEY").drivername == aio


@pytest.mark.parametrize(
    ("missing", "configured", "api", "drivername"),
    [
        ("asyncpg", "postgresql://", "async", "postgresql+psycopg"),
        ("psycopg", "postgresql://", "sync", "postgresql+psycopg2"),
        ("asyncmy", "mysql://", "async", "mysql+aiomysql"),
    ],
)
def test_next_driver_serves_where_the_preferred_is_missing(
    installed: set[str], missing: str, configured: str, api: API, drivername: str
) -> None:
    installed.remove(missing)

    assert for_api(make_url(configured), api, "KEY").drivername == drivername


def test_mysqlclient_is_preferred_where_it_is_installed(installed: set[str]) -> None:
    """It is what ``mysql://`` means to SQLAlchemy, so nothing changes for its users."""
    installed.add("MySQLdb")

    assert for_api(make_url("mysql://"), "sync", "KEY").drivername == "mysql+mysqldb"


@pytest.mark.parametrize(
    ("configured", "api", "message"),
    [
        (
            "postgresql://me:s3cret@db/shop",
            "async",
            "KEY: the async API needs a driver for 'postgresql', and none is installed."
            " Install 'asyncpg' or 'psycopg[binary]': pip install"
            ' "dualchemy[postgresql]".',
        ),
        (
            "postgresql+asyncpg://me:s3cret@db/shop",
            "async",
            "KEY: the async API needs a driver for 'postgresql', and none is installed."
            " Install 'asyncpg': pip install \"dualchemy[postgresql]\".",
        ),
        (
            "mysql://me:s3cret@db/shop",
            "sync",
            "KEY: the sync API needs a driver for 'mysql', and none is installed."
            " Install 'mysqlclient' or 'PyMySQL': pip install \"dualchemy[mysql]\".",
        ),
        (
            "sqlite:///shop.db",
            "async",
            "KEY: the async API needs a driver for 'sqlite', and none is installed."
            " Install 'aiosqlite': pip install \"dualchemy[sqlite]\".",
        ),
        (
            "mssql://me:s3cret@db/shop",
            "async",
            "KEY: the async API needs a driver for 'mssql', and none is installed."
            " Install 'aioodbc'.",
        ),
    ],
)
def test_missing_driver_is_named_with_the_extra_that_brings_it(
    installed: set[str], configured: str, api: API, message: str
) -> None:
    installed.clear()

    with pytest.raises(MissingDriverError) as caught:
        for_api(make_url(configured), api, "KEY")

    assert str(caught.value) == message
    assert isinstance(caught.value, ImportError)


def test_driver_that_serves_one_api_says_how_to_name_the_other() -> None:
    url = make_url("sqlite+pysqlcipher://:s3cret@/shop.db")
    assert for_api(url, "sync", "KEY") == url

    with pytest.raises(ConfigError) as caught:
        for_api(url, "async", "KEY")

    assert str(caught.value) == (
        "KEY: the driver of 'sqlite+pysqlcipher' does not serve the async API, and no"
        " counterpart is known. Name one with the 'async' key of the bind:"
        ' {"url": ..., \'async\': {"url": ...}}.'
    )


@pytest.mark.parametrize(
    ("configured", "aio_query"),
    [
        ("?sslmode=require", {"dsn": "postgresql://?sslmode=require"}),
        ("?connect_timeout=3", {"timeout": "3"}),
        ("?host=/tmp/socket", {"host": "/tmp/socket"}),
        (
            "?application_name=shop&host=/tmp",
            {"host": "/tmp", "dsn": "postgresql://?application_name=shop"},
        ),
    ],
)
def test_libpq_parameters_reach_asyncpg(
    installed: set[str], configured: str, aio_query: dict[str, str]
) -> None:
    url = make_url(f"postgresql://me@/shop{configured}")

    assert for_api(url, "async", "KEY").query == aio_query
    assert for_api(url, "sync", "KEY").query == url.query


def test_asyncpg_parameters_reach_psycopg(installed: set[str]) -> None:
    url = make_url(
        "postgresql+asyncpg://me@db/shop?ssl=require&timeout=3"
        "&prepared_statement_cache_size=0"
    )

    assert for_api(url, "async", "KEY") == url
    assert for_api(url, "sync", "KEY").query == {
        "sslmode": "require",
        "connect_timeout": "3",
    }


class TestPlugIn:
    """Third-party dialects, such as CockroachDB's, keep their drivernames."""

    @pytest.fixture(autouse=True)
    def roachdb(self) -> None:
        package = "sqlalchemy.dialects.postgresql"
        for name, module, cls in (
            ("roachdb", "psycopg2", "PGDialect_psycopg2"),
            ("roachdb.psycopg2", "psycopg2", "PGDialect_psycopg2"),
            ("roachdb.psycopg", "psycopg", "PGDialect_psycopg"),
            ("roachdb.asyncpg", "asyncpg", "PGDialect_asyncpg"),
            ("lonelydb", "psycopg2", "PGDialect_psycopg2"),
        ):
            registry.register(name, f"{package}.{module}", cls)

    @pytest.mark.parametrize(
        ("configured", "sync", "aio"),
        [
            ("roachdb://", "roachdb", "roachdb+asyncpg"),
            ("roachdb+asyncpg://", "roachdb+psycopg", "roachdb+asyncpg"),
            ("roachdb+psycopg2://", "roachdb+psycopg2", "roachdb+asyncpg"),
            ("roachdb+psycopg://", "roachdb+psycopg", "roachdb+psycopg"),
        ],
    )
    def test_serves_both_apis(
        self, installed: set[str], configured: str, sync: str, aio: str
    ) -> None:
        url = make_url(configured)

        assert for_api(url, "sync", "KEY").drivername == sync
        assert for_api(url, "async", "KEY").drivername == aio

    def test_takes_the_driver_that_is_installed(self, installed: set[str]) -> None:
        installed.remove("asyncpg")

        url = for_api(make_url("roachdb://"), "async", "KEY")

        assert url.drivername == "roachdb+psycopg"

    def test_without_an_async_dialect(self, installed: set[str]) -> None:
        with pytest.raises(ConfigError) as caught:
            for_api(make_url("lonelydb://"), "async", "KEY")

        assert str(caught.value).startswith(
            "KEY: the driver of 'lonelydb' does not serve the async API"
        )


def test_driver_in_a_missing_package_is_missing() -> None:
    """``mysql.connector``: to look for it Python imports ``mysql``, which fails."""
    assert importlib.util.find_spec("mysql") is None

    with pytest.raises(MissingDriverError):
        for_api(make_url("mysql+mysqlconnector://"), "sync", "KEY")
