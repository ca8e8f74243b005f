"""What is Flask's own way?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click
import flask
import flask.cli
from flask.globals import _cv_app
from werkzeug.sansio.request import Request

from .base import AppContext, CloseScope, CloseScopeAsync, add_templates


class FlaskFramework:
    """Flask 3.0 and later; from 3.2 on the request context is the app context."""

    name = "Flask"
    is_async = False

    def owns(self, app: object) -> bool:
        return isinstance(app, flask.Flask)

    if TYPE_CHECKING:

        def context(self) -> AppContext | None: ...
    else:
        # Every use of db.session asks for it, so it has no frame of its own.
        context = staticmethod(partial(_cv_app.get, None))

    def runs_here(self) -> bool:
        return True

    def request(self) -> Request | None:
        return flask.request if flask.has_request_context() else None

    def abort(self, code: int, description: str | None = None) -> NoReturn:
        flask.abort(code, description=description)

    def app_of_command(self, command: click.Context) -> Any:
        info = command.find_object(flask.cli.ScriptInfo)
        return None if info is None else info.load_app()

    @asynccontextmanager
    async def app_context(self, app: Any) -> AsyncIterator[None]:
        with app.app_context():
            yield

    def run_async(self, app: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        wrapped: Callable[..., Any] = app.ensure_sync(function)
        return wrapped

    def on_context_end(
        self, app: Any, close: CloseScope, aclose: CloseScopeAsync
    ) -> None:
        # Not a teardown function: Flask before 3.2 skips those that come after one
        # that raises, and ours would be the last.
        teardown = app.do_teardown_appcontext

        def do_teardown_appcontext(*args: Any, **kwargs: Any) -> None:
            context = _cv_app.get()
            try:
                teardown(*args, **kwargs)
            finally:
                close(context)

        app.do_teardown_appcontext = do_teardown_appcontext

    def on_shutdown(self, app: Any, dispose: Callable[[], Awaitable[None]]) -> None:
        """WSGI has no shutdown; the event loops that ran say when they end."""

    def add_templates(self, app: Any) -> None:
        add_templates(app)

    def add_shell_context(
        self, app: Any, processor: Callable[[], dict[str, Any]]
    ) -> None:
        app.shell_context_processor(processor)


Current = FlaskFramework
