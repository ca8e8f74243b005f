"""Which fixtures does pytest get?

They find the app through your fixture ``app``, and its ``db`` in ``app.extensions``. All
are functions that await nothing, so that they serve pytest-asyncio, anyio and tests
without an event loop: where something has to be awaited, it is between fixtures and
tests, while the loop that the test ran on waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from ..scope import EXTENSION, Registration, loop_of
from ..urls import API
from .databases import own_database
from .isolation import isolate

if TYPE_CHECKING:
    from ..async_sessions import AsyncSession
    from ..sessions import Session

INI = "dualchemy_isolation"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        INI,
        "isolate each test that uses the fixture 'app' (see 'db_isolation')",
        type="bool",
        default=False,
    )


@pytest.fixture
def db_isolation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo all that the test does on the databases of ``app``.

    With the ini option ``dualchemy_isolation`` every test that uses ``app`` has it.
    """
    registration = _registration(request)
    api: API = "async" if registration.framework.is_async else "sync"
    with isolate(registration.engines, api):
        yield


@pytest.fixture(autouse=True)
def _dualchemy_isolation(request: pytest.FixtureRequest) -> None:
    if request.config.getini(INI) and "app" in request.fixturenames:
        request.getfixturevalue("db_isolation")


@pytest.fixture
def db_session(request: pytest.FixtureRequest) -> Session | AsyncSession:
    """A session of the app's framework: ``async_db_session`` if that is Quart."""
    is_async = _registration(request).framework.is_async
    name = "async_db_session" if is_async else "sync_db_session"
    session: Session | AsyncSession = request.getfixturevalue(name)
    return session


@pytest.fixture
def sync_db_session(
    request: pytest.FixtureRequest, db_isolation: None
) -> Iterator[Session]:
    """A session of ``db.sync``, of the test's own, closed after it."""
    app = request.getfixturevalue("app")
    with _registration(request).db.sync.sessionmaker(app=app) as session:
        yield session


@pytest.fixture
def async_db_session(
    request: pytest.FixtureRequest, db_isolation: None
) -> Iterator[AsyncSession]:
    """A session of ``db.aio``, of the test's own, closed after it."""
    app = request.getfixturevalue("app")
    registration = _registration(request)
    session = registration.db.aio.sessionmaker(app=app)
    yield session
    engines: Any = session.sync_session
    loop = registration.engines.loop_of(engines._engines)
    if loop is None:  # It was not used, or its connections are closed with its loop.
        asyncio.run(session.close())
    else:
        loop.run_until_complete(session.close())


@pytest.fixture
def app_context(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An app context of ``app`` around the test."""
    app = request.getfixturevalue("app")
    context = app.app_context()
    if not _registration(request).framework.is_async:
        with context:
            yield context
        return
    # Quart pushes and pops it in a task; the test runs in another one, with a copy of
    # the context variables that are set here.
    variables = contextvars.copy_context()
    with asyncio.Runner() as runner:
        runner.run(context.push(), context=variables)
        tokens = _take_over(variables)
        yield context
        loop = loop_of(context)
        if loop is None or loop.is_closed():
            loop = runner.get_loop()
        _run(loop, context.pop(None), variables)
        for variable, token in reversed(tokens):
            variable.reset(token)


def _take_over(
    variables: contextvars.Context,
) -> list[tuple[contextvars.ContextVar[Any], contextvars.Token[Any]]]:
    missing = object()
    return [
        (variable, variable.set(value))
        for variable, value in variables.items()
        if variable.get(missing) is not value
    ]


def _run(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, None],
    variables: contextvars.Context,
) -> None:
    task = loop.create_task(coroutine, context=variables)
    loop.run_until_complete(task)


@pytest.fixture(scope="session")
def database_url() -> Iterator[Callable[..., str]]:
    """Make a database for this process of the test run, dropped at its end:
    ``database_url("postgresql://localhost/app")`` is its URL.

    The new name is that of the URL with the name of the xdist worker and the process's
    number. A second call with the same arguments gives the same database.
    ``template_database`` is one that PostgreSQL copies.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    made: dict[tuple[str, str | None], str] = {}
    with ExitStack() as stack:

        def make(url: str, *, template_database: str | None = None) -> str:
            key = str(url), template_database
            if key not in made:
                name = worker if not made else f"{worker}_{len(made)}"
                made[key] = stack.enter_context(
                    own_database(url, name, template_database=template_database)
                )
            return made[key]

        yield make


def _registration(request: pytest.FixtureRequest) -> Registration:
    app = request.getfixturevalue("app")
    registration: Registration | None = getattr(app, "extensions", {}).get(EXTENSION)
    if registration is None:
        raise pytest.UsageError(
            f"The fixture 'app' gives {app!r}, on which 'db.init_app' was not called."
        )
    return registration
