"""Which database does a process of a test run have to itself?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL

from ..config import is_sqlite, parse_url
from ..errors import ConfigError, MissingDriverError, show_url
from ..urls import for_api, normalize

_LONGEST = 63  # of a name on PostgreSQL; 64 on MySQL


@contextmanager
def own_database(
    template: str | URL, worker: str, *, template_database: str | None = None
) -> Iterator[str]:
    """Create a database, and drop it at the end.

    :param template: The URL, whose database's name the new name begins with.
    :param worker: The name of the process, which the new name ends with.
    :param template_database: On PostgreSQL, the database to copy.
    :return: The URL of the new one. In-memory SQLite is one for each app as it is.
    :raises ConfigError: if the URL is none, or names no database.
    """
    url = template if isinstance(template, URL) else parse_url(template, "database_url")
    url = normalize(url)
    database = url.database
    if is_sqlite(url) and (database or ":memory:") == ":memory:":
        yield url.render_as_string(hide_password=False)
        return
    if not database:
        raise ConfigError(
            f"database_url: {show_url(url)!r} names no database. Add a name"
            " for the new one to begin with."
        )
    end = f"_{worker}_{os.getpid()}"
    if is_sqlite(url):
        path = Path(database)
        path = path.with_name(f"{path.stem}{end}{path.suffix}")
        try:
            yield url.set(database=str(path)).render_as_string(hide_password=False)
        finally:
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        return
    own = url.set(database=database[: _LONGEST - len(end)] + end)
    quoted = _quote(url, own.database or "")
    create = f"CREATE DATABASE {quoted}"
    if template_database is not None:
        create += f" TEMPLATE {_quote(url, template_database)}"
    _run(url, create)
    try:
        yield own.render_as_string(hide_password=False)
    finally:
        force = " WITH (FORCE)" if _is_postgresql(url) else ""
        _run(url, f"DROP DATABASE {quoted}{force}")


def _is_postgresql(url: URL) -> bool:
    return url.get_backend_name() == "postgresql"


def _quote(url: URL, name: str) -> str:
    return url.get_dialect()().identifier_preparer.quote_identifier(name)


def _run(url: URL, sql: str) -> None:
    """Run a statement on the server, past the database of the URL."""
    server = url.set(database="postgres" if _is_postgresql(url) else "")
    options = {"isolation_level": "AUTOCOMMIT", "poolclass": sa.NullPool}
    try:
        engine = sa.create_engine(for_api(server, "sync", "database_url"), **options)
    except MissingDriverError:
        from sqlalchemy.ext.asyncio import create_async_engine

        async_engine = create_async_engine(
            for_api(server, "async", "database_url"), **options
        )

        async def run() -> None:
            async with async_engine.connect() as connection:
                await connection.exec_driver_sql(sql)

        # An event loop may be running in this thread.
        with ThreadPoolExecutor(1) as threads:
            threads.submit(asyncio.run, run()).result()
    else:
        with engine.connect() as connection:
            connection.exec_driver_sql(sql)
