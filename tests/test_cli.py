"""Commands of ``flask`` and ``quart`` that are coroutine functions."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import flask
import pytest
import quart
from click.testing import CliRunner
from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site, fresh_db
from support.databases import Backend

from dualchemy import ContextError
from dualchemy.cli import with_appcontext

PROGRAM = """
import asyncio, os, signal, sys
import click
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column
from dualchemy import Model, SQLAlchemy
from dualchemy.cli import with_appcontext
from FRAMEWORK import Blueprint, APP

# Of a shell's background job, as these tests may be, it is ignored from the start.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Base(Model):
    pass

db = SQLAlchemy(model_class=Base)

class User(Base):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

def create_app():
    app = APP(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    db.init_app(app)
    app.register_blueprint(users)

    @app.cli.command()
    @with_appcontext
    async def fail():
        await db.aio.session.execute(select(1))
        raise LookupError("no such user")

    @app.cli.command()
    @with_appcontext
    async def leave():
        await db.aio.session.execute(select(1))
        sys.exit(7)

    @app.cli.command()
    @with_appcontext
    async def refuse():
        await db.aio.session.execute(select(1))
        raise click.ClickException("not today")

    @app.cli.command()
    @with_appcontext
    async def wait():
        await db.aio.session.execute(select(1))
        try:
            print("waiting", flush=True)
            await asyncio.sleep(60)
        finally:
            print("tidying", await db.aio.session.scalar(select(2)), flush=True)

    return app

users = Blueprint("users", __name__)

@users.cli.command()
@click.argument("names", nargs=-1)
@with_appcontext
async def add(names):
    "Add users."
    await db.aio.create_all()
    db.aio.session.add_all(User(name=name) for name in names)
    await db.aio.session.commit()
    page = await db.aio.paginate(select(User).order_by(User.name))
    click.echo([user.name for user in page])
"""


@pytest.mark.backends("sqlite", "postgresql")
class TestCommandLine:
    """The real programs, of which nothing but what they print is known."""

    @pytest.fixture
    def start(
        self, framework: str, backend: Backend, tmp_path: Path
    ) -> Callable[..., subprocess.Popen[str]]:
        source = PROGRAM.replace("FRAMEWORK", framework)
        source = source.replace("APP", framework.capitalize())
        (tmp_path / "shop.py").write_text(source)

        def start(
            *arguments: str, input: int = subprocess.DEVNULL
        ) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "always",
                    "-m",
                    framework,
                    "-A",
                    "shop",
                    *arguments,
                ],
                cwd=tmp_path,
                env={**os.environ, "DATABASE_URL": backend.url},
                stdin=input,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        return start

    def test_command_prints_its_result(self, start: Any) -> None:
        for name, names in ("grace", "['grace']"), ("ada", "['ada', 'grace']"):
            process = start("users", "add", name)
            assert process.communicate() == (f"{names}\n", "")
            assert process.returncode == 0

    def test_help_is_the_docstring(self, start: Any) -> None:
        out, _ = start("users", "add", "--help").communicate()
        assert "[NAMES]..." in out
        assert "Add users." in out

    def test_error_is_shown_as_of_any_command(self, start: Any) -> None:
        process = start("fail")
        out, error = process.communicate()
        assert (out, process.returncode) == ("", 1)
        assert error.endswith("LookupError: no such user\n")

    def test_exit_code_is_the_command_s(self, start: Any) -> None:
        process = start("leave")
        assert (*process.communicate(), process.returncode) == ("", "", 7)

    def test_error_of_click_is_one_line(self, start: Any) -> None:
        process = start("refuse")
        assert process.communicate() == ("", "Error: not today\n")
        assert process.returncode == 1

    def test_ctrl_c_cancels(self, start: Any) -> None:
        process = start("wait")
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate()
        assert (out, error.strip()) == ("tidying 2\n", "Aborted!")
        assert process.returncode == 1

    def test_shell_has_db_and_the_models(self, start: Any) -> None:
        process = start("shell", input=subprocess.PIPE)
        out, error = process.communicate(
            "db.sync.create_all()\n"
            "db.sync.session.add(User(name='ada'))\n"
            "db.sync.session.commit()\n"
            "print('found', db.sync.get_or_404(User, 1).name)\n"
        )
        assert "found ada" in out
        for wrong in ("Traceback", "Warning", "never closed"):
            assert wrong not in error
        assert process.returncode == 0


def call(site: Site, how: str, function: Any, *arguments: str) -> Any:
    """Run a function as a command and return what it returned."""
    command = with_appcontext(function)
    if how == "command":
        site.app.cli.command("it")(command)
        arguments = ("it", *arguments)
        runner = site.app.test_cli_runner()
        return runner.invoke(
            args=arguments, standalone_mode=False, catch_exceptions=False
        ).return_value
    group = site.app.cli.group("group")(lambda: None)
    group.command("it")(command)
    runner = site.app.test_cli_runner()
    return runner.invoke(
        args=("group", "it", *arguments), standalone_mode=False, catch_exceptions=False
    ).return_value


class TestRunner:
    """``app.test_cli_runner()``, where no event loop runs."""

    @pytest.fixture(params=["command", "in a group"])
    def how(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")
    def test_no_connection_is_left(
        self,
        framework: str,
        backend: Backend,
        server: Any,
        make_sync_site: Any,
        how: str,
    ) -> None:
        site = make_sync_site(framework, SQLALCHEMY_DATABASE_URI=backend.url)
        database = make_url(backend.url).database

        async def work() -> int:
            await site.db.aio.session.execute(text("SELECT 1"))
            async with site.db.aio.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            return server.connections(database)

        assert call(site, how, work) == 2
        assert server.connections(database) == 0

    @pytest.mark.backends("sqlite-memory")
    def test_context_is_the_command_s_own(
        self, framework: str, backend: Backend, make_sync_site: Any, how: str
    ) -> None:
        site = make_sync_site(framework, SQLALCHEMY_DATABASE_URI=backend.url)
        module = {"flask": flask, "quart": quart}[framework]

        async def first() -> Any:
            module.g.seen = True
            assert module.current_app == site.app
            return site.db.aio.session()

        async def second() -> Any:
            return hasattr(module.g, "seen"), site.db.aio.session()

        one = call(site, how, first)
        seen, two = call(site, how, second)
        assert not seen
        assert one is not two

    @pytest.mark.backends("sqlite")
    def test_session_is_closed_after_an_error(
        self, framework: str, backend: Backend, make_sync_site: Any, how: str
    ) -> None:
        site = make_sync_site(framework, SQLALCHEMY_DATABASE_URI=backend.url)
        sessions = []

        async def work() -> None:
            await site.db.aio.session.execute(text("SELECT 1"))
            sessions.append(site.db.aio.session())
            raise LookupError("gone")

        with pytest.raises(LookupError, match="gone"):
            call(site, how, work)
        assert not sessions[0].in_transaction()

    @pytest.mark.backends("sqlite-memory")
    def test_plain_function_runs_too(
        self, framework: str, backend: Backend, make_sync_site: Any, how: str
    ) -> None:
        site = make_sync_site(framework, SQLALCHEMY_DATABASE_URI=backend.url)

        def work() -> Any:
            return site.db.sync.session.scalar(text("SELECT 7"))

        assert call(site, how, work) == 7

    @pytest.mark.backends("sqlite-memory")
    def test_click_s_own_decorators_go_below(
        self, framework: str, backend: Backend, make_sync_site: Any, how: str
    ) -> None:
        site = make_sync_site(framework, SQLALCHEMY_DATABASE_URI=backend.url)

        @click.pass_context
        async def work(context: click.Context) -> Any:
            assert click.get_current_context() is context
            return context.info_name

        assert call(site, how, work) == "it"


class TestRunnerOnALoop:
    """``app.test_cli_runner()`` in an async test."""

    @pytest.mark.backends("sqlite-memory", "postgresql")
    async def test_command_has_a_session_of_its_own(self, site: Site) -> None:
        class User(site.db.Model):
            id: Mapped[int] = mapped_column(primary_key=True)

        count = select(func.count()).select_from(User)
        loops = []

        @click.option("--id", type=int)
        @with_appcontext
        async def add(id: int) -> Any:
            loops.append(asyncio.get_running_loop())
            assert click.get_current_context().info_name == "add"
            site.db.aio.session.add(User(id=id))
            await site.db.aio.session.commit()
            return await site.db.aio.session.scalar(count)

        site.app.cli.command("add")(add)
        async with site.context():
            await site.db.aio.create_all()
            mine = site.db.aio.session()
            mine.add(User(id=1))
            result = site.app.test_cli_runner().invoke(
                args=["add", "--id", "2"], standalone_mode=False, catch_exceptions=False
            )
            assert result.return_value == 1
            assert site.db.aio.session() is mine
            await site.db.aio.session.commit()
            assert await mine.scalar(count) == 2
        assert loops != [asyncio.get_running_loop()]

    @pytest.mark.backends("postgresql")
    async def test_no_connection_is_left(
        self, site: Site, server: Any, backend: Backend
    ) -> None:
        @site.app.cli.command("work")
        @with_appcontext
        async def work() -> None:
            await site.db.aio.session.execute(text("SELECT 1"))
            raise LookupError("gone")

        result = site.app.test_cli_runner().invoke(args=["work"])
        assert isinstance(result.exception, LookupError)
        assert result.exit_code == 1
        assert server.connections(make_url(backend.url).database) == 0

    @pytest.mark.backends("sqlite-memory")
    async def test_works_below_quart_s_own_decorator(
        self, backend: Backend, make_site: Any
    ) -> None:
        """Which runs an event loop, and calls the function on it."""
        site = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)

        @site.app.cli.command("work", with_appcontext=True)
        @with_appcontext
        async def work() -> None:
            click.echo(await site.db.session.scalar(text("SELECT 7")))

        runner = site.app.test_cli_runner()
        result = await asyncio.to_thread(runner.invoke, args=["work"])
        assert (result.output, result.exit_code) == ("7\n", 0)


class TestOutside:
    """A command that is on no app's command line."""

    @pytest.mark.backends("sqlite-memory")
    async def test_app_of_the_active_context_is_taken(self, site: Site) -> None:
        @click.command()
        @with_appcontext
        async def work() -> None:
            click.echo(await site.db.aio.session.scalar(text("SELECT 7")))

        async with site.context():
            result = CliRunner().invoke(work)
        assert (result.output, result.exit_code) == ("7\n", 0)

    def test_no_app_is_an_error(self) -> None:
        fresh_db()

        @click.command("work")
        @with_appcontext
        async def work() -> None:
            raise AssertionError

        with pytest.raises(ContextError, match=r"'work' .* '@app\.cli\.command\(\)'"):
            CliRunner().invoke(work, catch_exceptions=False)
