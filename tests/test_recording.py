"""Which statements a context ran, and from where."""

from __future__ import annotations

from typing import Any

import pytest
import quart
from flask import g as flask_g
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from support.apps import Site, resolve
from support.databases import Backend

from dualchemy import get_recorded_queries


@pytest.fixture
def recorded(framework: str, backend: Backend, make_site: Any) -> Site:
    """A site that records its queries."""
    site: Site = make_site(
        framework,
        SQLALCHEMY_DATABASE_URI=backend.url,
        SQLALCHEMY_RECORD_QUERIES=True,
    )
    site.app.import_name = __name__  # this module is the application
    return site


@pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
async def test_statement_parameters_times_and_place(recorded: Site) -> None:
    async with recorded.context():
        await resolve(recorded.db.session.execute(text("SELECT :x"), {"x": "y"}))
        (query,) = get_recorded_queries()
    assert query.statement is not None
    assert query.statement.startswith("SELECT ")
    assert "y" in str(query.parameters)
    assert 0 < query.duration < 10
    assert query.end_time - query.start_time == query.duration
    path, rest = query.location.rsplit(":", 1)
    assert path == __file__
    assert rest.endswith("(test_statement_parameters_times_and_place)")


@pytest.mark.backends("sqlite")
class TestRecording:
    async def test_is_of_the_context(self, recorded: Site) -> None:
        async with recorded.context():
            await resolve(recorded.db.session.execute(text("SELECT 1")))
            await resolve(recorded.db.session.execute(text("SELECT 2")))
            assert [q.statement for q in get_recorded_queries()] == [
                "SELECT 1",
                "SELECT 2",
            ]
        async with recorded.context():
            assert get_recorded_queries() == []
        assert get_recorded_queries() == []

    async def test_is_where_toolbars_look_for_it(self, recorded: Site) -> None:
        async with recorded.context():
            await resolve(recorded.db.session.execute(text("SELECT 1")))
            g = quart.g if recorded.is_async else flask_g
            assert g._sqlalchemy_queries is get_recorded_queries()

    async def test_statement_that_failed(self, recorded: Site) -> None:
        async with recorded.context():
            with pytest.raises(DBAPIError):
                await resolve(recorded.db.session.execute(text("SELECT nothing")))
            (query,) = get_recorded_queries()
        assert query.statement == "SELECT nothing"
        assert "(test_statement_that_failed)" in query.location

    async def test_executemany_is_one(self, recorded: Site) -> None:
        async with recorded.context():
            session = recorded.db.session
            await resolve(session.execute(text("CREATE TABLE t (x INTEGER)")))
            rows = [{"x": 1}, {"x": 2}]
            await resolve(session.execute(text("INSERT INTO t VALUES (:x)"), rows))
            query = get_recorded_queries()[-1]
        assert [tuple(each) for each in query.parameters] == [(1,), (2,)]

    async def test_code_elsewhere_is_unknown(self, recorded: Site) -> None:
        recorded.app.import_name = "another_app"
        async with recorded.context():
            await resolve(recorded.db.session.execute(text("SELECT 1")))
            assert get_recorded_queries()[0].location == "<unknown>"

    async def test_parameters_can_be_hidden(
        self, framework: str, backend: Backend, make_site: Any
    ) -> None:
        site = make_site(
            framework,
            SQLALCHEMY_DATABASE_URI=backend.url,
            SQLALCHEMY_RECORD_QUERIES=True,
            SQLALCHEMY_ENGINE_OPTIONS={"hide_parameters": True},
        )
        async with site.context():
            await resolve(site.db.session.execute(text("SELECT :x"), {"x": "s3cret"}))
            assert get_recorded_queries()[0].parameters is None

    async def test_is_off_without_the_config(self, site: Site) -> None:
        async with site.context():
            await resolve(site.db.session.execute(text("SELECT 1")))
            assert get_recorded_queries() == []
