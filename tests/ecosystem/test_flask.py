"""Small real programs, one for a package, that do with Dualchemy in Flask what the
package's own quick start does.

Each runs in a process of its own: what packages are imported, and under which name, is
the whole process's. The process is forked, so that Flask and SQLAlchemy, which every
program needs, are imported once.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import re
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from support.databases import Backend

import dualchemy.flask

PROGRAMS = {
    path.stem: path
    for path in sorted((Path(__file__).parent / "flask_programs").glob("*.py"))
}
IMPORTERS = (
    "flask_admin",
    "flask_appbuilder",
    "flask_debugtoolbar",
    "flask_marshmallow",
    "flask_session",
    "safrs",
)
"""The programs whose packages import ``flask_sqlalchemy``."""

DOCS = Path(__file__).parent.parent.parent / "docs" / "ecosystem.rst"
TIME_LIMIT = 120

IS_SQLALCHEMY_20 = sqlalchemy.__version__.startswith("2.0.")
no_opentelemetry = pytest.mark.xfail(
    not IS_SQLALCHEMY_20, reason="it instruments SQLAlchemy 2.0 only", strict=True
)


def _run(program: Path, environment: dict[str, str], installed: bool) -> None:
    """The child process: be the program."""
    output = os.open(program.with_suffix(".log"), os.O_CREAT | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(program.parent)
    os.environ.update(environment)
    warnings.simplefilter("error")
    logging.getLogger().handlers.clear()  # those of pytest
    if installed:
        dualchemy.install_as_flask_sqlalchemy()
    runpy.run_path(str(program), run_name="__main__")
    if installed:
        assert sys.modules["flask_sqlalchemy"].SQLAlchemy is dualchemy.SQLAlchemy


@pytest.fixture
def run(
    tmp_path: Path, backend: Backend, make_database: Callable[[str, str], str]
) -> Callable[..., tuple[bool, str]]:
    """Run a program on empty databases, and return whether it succeeds and what it
    prints: ``run(source)``.
    """
    numbers = itertools.count()

    def run(source: str, installed: bool = False) -> tuple[bool, str]:
        number = next(numbers)
        program = tmp_path / str(number) / "program.py"
        program.parent.mkdir()
        program.write_text(source)
        environment = {
            "DATABASE_URL": make_database(backend.name, f"main{number}"),
            "OTHER_DATABASE_URL": make_database(backend.name, f"other{number}"),
        }
        process = multiprocessing.get_context("fork").Process(
            target=_run, args=(program, environment, installed)
        )
        process.start()
        process.join(TIME_LIMIT)
        if process.is_alive():
            process.kill()
            process.join()
        log = program.with_suffix(".log").read_text()
        return process.exitcode == 0, f"{log}\nexit code {process.exitcode}"

    return run


def check(result: tuple[bool, str]) -> None:
    succeeds, log = result
    if not succeeds:
        pytest.fail(log, pytrace=False)


@pytest.mark.backends("sqlite", "postgresql")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=no_opentelemetry) if name == "opentelemetry" else name
        for name in PROGRAMS
    ],
)
def test_program(name: str, run: Any) -> None:
    check(run(PROGRAMS[name].read_text()))


@pytest.mark.backends("sqlite")
@pytest.mark.parametrize("name", IMPORTERS)
def test_program_with_dualchemy_installed_as_flask_sqlalchemy(
    name: str, run: Any
) -> None:
    check(run(PROGRAMS[name].read_text(), installed=True))


class TestLimits:
    """What the packages themselves cannot do: no better with Flask-SQLAlchemy."""

    def check(self, run: Any, name: str, old: str, new: str, error: str) -> None:
        source = PROGRAMS[name].read_text()
        assert old in source
        source = source.replace(old, new, 1)
        genuine = source.replace("from dualchemy.flask", "from flask_sqlalchemy")
        assert genuine != source
        for each in (source, genuine):
            succeeds, log = run(each)
            assert not succeeds
            assert error in log

    @pytest.mark.backends("postgresql-psycopg")
    def test_flask_admin_deletes_several_rows_by_keys_that_are_text(
        self, run: Any
    ) -> None:
        self.check(
            run,
            "flask_admin",
            '["DATABASE_URL"].startswith("sqlite")',
            '["DATABASE_URL"]',
            "operator does not exist: integer = character varying",
        )

    @pytest.mark.backends("sqlite")
    def test_flask_alembic_compares_one_database(self, run: Any) -> None:
        self.check(
            run,
            "flask_alembic",
            'alembic.revision("more columns")',
            "alembic.compare_metadata()",
            "MigrationScript instance has a multiple-entry list for UpgradeOps",
        )

    @pytest.mark.backends("sqlite")
    def test_flask_debugtoolbar_runs_statements_by_engine_execute(
        self, run: Any
    ) -> None:
        self.check(
            run,
            "flask_debugtoolbar",
            'assert "(index)" in page\n',
            """
import html, re
link = html.unescape(re.search(r'/_debug[^"]*sql_select[^"]*', page)[0])
app.testing = True
client.get(link)
""",
            "'Engine' object has no attribute 'execute'",
        )

    @pytest.mark.backends("sqlite")
    def test_flask_migrate_checks_what_its_template_emptied(self, run: Any) -> None:
        self.check(
            run,
            "flask_migrate",
            'migrate("downgrade")',
            'migrate("check")',
            "IndexError('list index out of range')",
        )

    @pytest.mark.backends("sqlite")
    @pytest.mark.skipif(IS_SQLALCHEMY_20, reason="a limit on SQLAlchemy 2.1")
    def test_opentelemetry_instruments_sqlalchemy_20(self, run: Any) -> None:
        error = "falls outside of that range, so nothing can be instrumented"
        self.check(run, "opentelemetry", "", "", error)


def test_every_program_is_documented() -> None:
    documented = re.findall(
        r"^    \* - .*\(``(\w+)``\)$", DOCS.read_text(), re.MULTILINE
    )
    assert len(PROGRAMS) >= 26
    assert set(PROGRAMS) <= set(documented)
