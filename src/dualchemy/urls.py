"""Which driver serves a URL on which API?

A URL names a backend (``postgresql``) and perhaps a driver (``asyncpg``). Each backend
has drivers for the sync and for the async API, so that one URL can serve both. Drivers
are looked for, never imported, here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal

from sqlalchemy.engine import URL
from sqlalchemy.exc import NoSuchModuleError

from .errors import ConfigError, MissingDriverError

API = Literal["sync", "async"]


@dataclass(frozen=True, slots=True)
class Driver:
    """A DBAPI: its name in a URL, the module it lives in, and what pip calls it."""

    name: str
    module: str
    package: str

    def installed(self) -> bool:
        """Tell whether the module can be found, without importing it."""
        try:
            return find_spec(self.module) is not None
        except ModuleNotFoundError:  # a parent package is missing
            return False


@dataclass(frozen=True, slots=True)
class Backend:
    """The drivers of a database, the preferred first, and the extra that brings them.

    ``default`` is the sync driver that SQLAlchemy takes for a URL that names none.
    """

    sync: tuple[Driver, ...]
    aio: tuple[Driver, ...]
    extra: str | None = None
    default: str | None = None

    def drivers(self, api: API) -> tuple[Driver, ...]:
        """Return the drivers of one API."""
        return self.aio if api == "async" else self.sync

    def knows(self, name: str) -> bool:
        """Tell whether the driver belongs to this backend on either API."""
        return any(driver.name == name for driver in (*self.sync, *self.aio))


_PSYCOPG = Driver("psycopg", "psycopg", "psycopg[binary]")
_POSTGRESQL = Backend(
    sync=(
        _PSYCOPG,
        Driver("psycopg2", "psycopg2", "psycopg2-binary"),
        Driver("pg8000", "pg8000", "pg8000"),
    ),
    aio=(
        Driver("asyncpg", "asyncpg", "asyncpg"),
        _PSYCOPG,
        Driver("psycopg_async", "psycopg", "psycopg[binary]"),
    ),
    extra="postgresql",
)
_MYSQL = Backend(
    sync=(
        Driver("mysqldb", "MySQLdb", "mysqlclient"),
        Driver("pymysql", "pymysql", "PyMySQL"),
        Driver("mysqlconnector", "mysql.connector", "mysql-connector-python"),
        Driver("mariadbconnector", "mariadb", "mariadb"),
    ),
    aio=(
        Driver("asyncmy", "asyncmy", "asyncmy"),
        Driver("aiomysql", "aiomysql", "aiomysql"),
    ),
    extra="mysql",
)
_BACKENDS: Mapping[str, Backend] = {
    "sqlite": Backend(
        sync=(Driver("pysqlite", "sqlite3", "sqlite3"),),
        aio=(Driver("aiosqlite", "aiosqlite", "aiosqlite"),),
        extra="sqlite",
        default="pysqlite",
    ),
    "postgresql": _POSTGRESQL,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "mssql": Backend(
        sync=(
            Driver("pyodbc", "pyodbc", "pyodbc"),
            Driver("pymssql", "pymssql", "pymssql"),
        ),
        aio=(Driver("aioodbc", "aioodbc", "aioodbc"),),
    ),
    "oracle": Backend(
        sync=(
            Driver("oracledb", "oracledb", "oracledb"),
            Driver("cx_oracle", "cx_Oracle", "cx_Oracle"),
        ),
        aio=(
            Driver("oracledb", "oracledb", "oracledb"),
            Driver("oracledb_async", "oracledb", "oracledb"),
        ),
    ),
}


def normalize(url: URL) -> URL:
    """Return the URL with ``postgres``, which hosting services still hand out, as
    ``postgresql``.
    """
    name, plus, driver = url.drivername.partition("+")
    if name != "postgres":
        return url
    return url.set(drivername=f"postgresql{plus}{driver}")


def for_api(url: URL, api: API, path: str) -> URL:
    """Return the URL that serves the same database on the given API.

    :param url: What the user configured.
    :param path: The config key it came from, for messages.
    :raises MissingDriverError: if no driver for that API is installed.
    :raises ConfigError: if the URL's driver has no counterpart on that API.
    """
    name, _, driver = url.drivername.partition("+")
    backend = _BACKENDS.get(name)
    if backend is None:
        return _plug_in_url(url, api, path)
    if driver and not backend.knows(driver):
        return _same_driver(url, api, path)
    found = _choose(backend, driver, api, name, path)
    if found.name == (driver or backend.default):
        return url
    return _translate_query(url.set(drivername=f"{name}+{found.name}"), driver)


def _choose(backend: Backend, driver: str, api: API, name: str, path: str) -> Driver:
    candidates = backend.drivers(api)
    named = [d for d in candidates if d.name == driver]
    for candidate in named or candidates:
        if candidate.installed():
            return candidate
    packages = " or ".join(
        f"'{package}'"
        for package in dict.fromkeys(d.package for d in named or candidates[:2])
    )
    extra = f': pip install "dualchemy[{backend.extra}]"' if backend.extra else ""
    raise MissingDriverError(
        f"{path}: the {api} API needs a driver for {name!r}, and none is installed."
        f" Install {packages}{extra}."
    )


def _same_driver(url: URL, api: API, path: str) -> URL:
    """A driver that is not in the table serves the one API its dialect is written
    for.
    """
    if _serves(url, api):
        return url
    raise ConfigError(
        f"{path}: the driver of {url.drivername!r} does not serve the {api} API, and"
        f" no counterpart is known. Name one with the {api!r} key of the bind:"
        f' {{"url": ..., {api!r}: {{"url": ...}}}}.'
    )


def _plug_in_url(url: URL, api: API, path: str) -> URL:
    """Third-party dialects keep their drivernames; a counterpart is taken where the
    plug-in registers one under its driver's usual name.
    """
    if _serves(url, api):
        return url
    name, _, driver = url.drivername.partition("+")
    for backend in dict.fromkeys(_BACKENDS.values()):
        if driver and not backend.knows(driver):
            continue
        for candidate in backend.drivers(api):
            other = url.set(drivername=f"{name}+{candidate.name}")
            if candidate.installed() and _serves(other, api):
                return _translate_query(other, driver)
    return _same_driver(url, api, path)


def check_dialect(url: URL, path: str) -> None:
    """Raise :exc:`.ConfigError` if SQLAlchemy knows no dialect of the URL's name."""
    name, _, driver = url.drivername.partition("+")
    backend = _BACKENDS.get(name)
    if backend is not None and (not driver or backend.knows(driver)):
        return
    if _dialect_is_async(url.drivername, "sync") is None:
        raise ConfigError(
            f"{path}: SQLAlchemy has no dialect {url.drivername!r}. Check the part"
            " before '://'; a third-party dialect needs its package installed."
        )


@cache
def _dialect_is_async(drivername: str, api: API) -> bool | None:
    """Tell which API a dialect is written for; ``None`` if there is no such dialect."""
    try:
        # The argument is how create_async_engine picks psycopg's async half.
        dialect = URL.create(drivername).get_dialect(_is_async=api == "async")
    except NoSuchModuleError:
        return None
    return dialect.is_async


def _serves(url: URL, api: API) -> bool:
    return _dialect_is_async(url.drivername, api) == (api == "async")


# asyncpg reads libpq's parameters from a DSN, but not as keyword arguments, which is
# what SQLAlchemy turns a URL's query into.
# https://magicstack.github.io/asyncpg/current/api/index.html#connection
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_LIBPQ_ONLY = frozenset(
    {
        "application_name",
        "fallback_application_name",
        "options",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
    }
)
_LIBPQ_TO_ASYNCPG = {"connect_timeout": "timeout"}
_ASYNCPG_TO_LIBPQ = {"ssl": "sslmode", "timeout": "connect_timeout"}
_ASYNCPG_ONLY = frozenset(
    {
        "command_timeout",
        "max_cacheable_statement_size",
        "max_cached_statement_lifetime",
        "prepared_statement_cache_size",
        "statement_cache_size",
    }
)

Query = Mapping[str, str | tuple[str, ...]]


def _translate_query(url: URL, came_from: str) -> URL:
    """Say a URL's query in the words of the driver that now serves it."""
    driver = url.drivername.partition("+")[2]
    translate: Callable[[Query], dict[str, str | tuple[str, ...]]]
    if driver == "asyncpg":
        translate = _query_for_asyncpg
    elif came_from == "asyncpg":
        translate = _query_for_libpq
    else:
        return url
    return url.set(query=translate(url.query))


def _query_for_asyncpg(query: Query) -> dict[str, str | tuple[str, ...]]:
    kept = {
        _LIBPQ_TO_ASYNCPG.get(key, key): value
        for key, value in query.items()
        if key not in _LIBPQ_ONLY
    }
    libpq = {key: value for key, value in query.items() if key in _LIBPQ_ONLY}
    if libpq:
        kept["dsn"] = URL.create("postgresql", query=libpq).render_as_string(
            hide_password=False
        )
    return kept


def _query_for_libpq(query: Query) -> dict[str, str | tuple[str, ...]]:
    return {
        _ASYNCPG_TO_LIBPQ.get(key, key): value
        for key, value in query.items()
        if key not in _ASYNCPG_ONLY
    }
