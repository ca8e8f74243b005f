"""Fixtures: a database of each backend, an app of each framework."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.apps import FRAMEWORKS, Site, Sites, resolve
from support.databases import DRIVERS, Backend, Databases, UnavailableError
from support.isolation import Case

pytest_plugins = ["dualchemy.testing.pytest_plugin"]

DATABASES = pytest.StashKey[Databases]()
REPORTS = pytest.StashKey[list[dict[str, tuple[int, str]]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        choices=Databases.NAMES,
        help="run the tests that use a database on this backend only (repeatable)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DATABASES] = Databases(str(os.getpid()))
    config.stash[REPORTS] = []


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[DATABASES].stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("backends")
        names = marker.args if marker else Databases.NAMES
        wanted = metafunc.config.getoption("--backend") or names
        metafunc.parametrize(
            "backend", [name for name in names if name in wanted], indirect=True
        )
    if "framework" in metafunc.fixturenames:
        metafunc.parametrize("framework", list(FRAMEWORKS))


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Only the workers of pytest-xdist have one; the main process hears it from them.
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["databases"] = session.config.stash[DATABASES].report()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: many tests wait for a server or a clock."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[REPORTS].append(node.workeroutput.get("databases", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    terminalreporter.section("databases covered")
    reports = config.stash[REPORTS] or [config.stash[DATABASES].report()]
    for name in Databases.NAMES:
        found = [report[name] for report in reports if name in report]
        count = sum(count for count, _ in found)
        # One that no test of a worker asked for says so there.
        _, server = max(found, default=(0, "no worker reported"))
        terminalreporter.line(f"{name:20} {count:5} tests   {server}")


@pytest.fixture
def make_database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[str, str], str]:
    """Make an empty database: ``make_database(backend_name, label)`` is its URL."""
    databases = request.config.stash[DATABASES]

    def make(backend: str, label: str) -> str:
        try:
            return databases.empty(backend, label, tmp_path)
        except UnavailableError as error:
            pytest.skip(f"{backend}: {error}")

    return make


@pytest.fixture
def backend(
    request: pytest.FixtureRequest, make_database: Callable[[str, str], str]
) -> Backend:
    """An empty database, on each backend in turn."""
    name = request.param
    url = make_database(name, "main")
    request.config.stash[DATABASES].tests[name] += 1
    return Backend(name, url, *DRIVERS[name])


@pytest.fixture
def server(request: pytest.FixtureRequest, backend: Backend) -> Any:
    """The server of the backend, to do to it what happens to servers."""
    return request.config.stash[DATABASES].server_of(backend.name)


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    """The apps that a test made."""
    return Sites(tmp_path)


@pytest.fixture
async def make_site(sites: Sites) -> AsyncIterator[Callable[..., Site]]:
    """Make an app with ``db``: ``make_site("quart", db, SQLALCHEMY_DATABASE_URI=...)``.
    Its connections are closed after the test.
    """
    yield sites.make
    await sites.dispose()


@pytest.fixture
def make_sync_site(sites: Sites) -> Iterator[Callable[..., Site]]:
    """:func:`make_site` for event loops that the test runs itself."""
    yield sites.make
    sites.dispose_sync()


@pytest.fixture
def site(framework: str, backend: Backend, make_site: Callable[..., Site]) -> Site:
    """An app of each framework with an empty database of each backend."""
    return make_site(framework, SQLALCHEMY_DATABASE_URI=backend.url)


@pytest.fixture
async def case(site: Site, backend: Backend) -> AsyncIterator[Case]:
    """A table with one row, named "before"."""
    case = Case(site, backend)
    async with site.context():
        await resolve(site.api.create_all())
    await case.add("before")
    yield case
    case.outsider.close()
