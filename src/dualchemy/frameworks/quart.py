"""What is Quart's own way?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Token
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click
import quart
import quart.cli
from quart.globals import _cv_app
from werkzeug.sansio.request import Request

from .base import AppContext, CloseScope, CloseScopeAsync, add_templates

_cv_request: Any = getattr(quart.globals, "_cv_request", None)  # before 0.23
_cv_websocket: Any = getattr(quart.globals, "_cv_websocket", None)


class QuartFramework:
    """Quart 0.23 and later, which has one kind of context."""

    name = "Quart"
    is_async = True

    def owns(self, app: object) -> bool:
        return isinstance(app, quart.Quart)

    if TYPE_CHECKING:

        def context(self) -> AppContext | None: ...
    else:
        # Every use of db.session asks for it, so it has no frame of its own.
        context = staticmethod(partial(_cv_app.get, None))

    def runs_here(self) -> bool:
        return asyncio._get_running_loop() is not None

    def request(self) -> Request | None:
        return quart.request if quart.has_request_context() else None

    def abort(self, code: int, description: str | None = None) -> NoReturn:
        quart.abort(code, description=description)

    def app_of_command(self, command: click.Context) -> Any:
        info = command.find_object(quart.cli.ScriptInfo)
        return None if info is None else info.load_app()

    def app_context(self, app: Any) -> AbstractAsyncContextManager[Any]:
        context: AbstractAsyncContextManager[Any] = app.app_context()
        return context

    def run_async(self, app: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> NoReturn:
            raise RuntimeError(
                f"{function!r} is a coroutine function, and 'db.sync' committed in a"
                " thread that has no event loop to await it. Commit with the async"
                " session, or make it a plain function."
            )

        return refuse

    def on_context_end(
        self, app: Any, close: CloseScope, aclose: CloseScopeAsync
    ) -> None:
        # Not a teardown function: Quart runs those in the order of registration, so
        # that a later one could open a session anew, and before 0.23 it skips the rest
        # when one raises.
        _after(app, "do_teardown_appcontext", lambda: _cv_app.get(), aclose)

    def on_shutdown(self, app: Any, dispose: Callable[[], Awaitable[None]]) -> None:
        app.after_serving(dispose)

    def add_templates(self, app: Any) -> None:
        add_templates(app)

    def add_shell_context(
        self, app: Any, processor: Callable[[], dict[str, Any]]
    ) -> None:
        app.shell_context_processor(processor)


class EarlierQuartFramework(QuartFramework):  # pragma: no cover - of a version
    """Quart before 0.23, where a request or websocket pushes an app context only if none
    of its app is active.

    So a copied request, and a test client's within an app context, share one. Each has
    sessions of its own all the same, as from 0.23 on: they hang on the request.
    """

    def context(self) -> AppContext | None:
        app_context: Any = _cv_app.get(None)
        request = _sharing_request()
        if request is None:
            return app_context
        tokens = app_context._cv_tokens
        if tokens and tokens[0].old_value is not Token.MISSING:
            return app_context  # pushed within the request
        return request

    def on_context_end(
        self, app: Any, close: CloseScope, aclose: CloseScopeAsync
    ) -> None:
        super().on_context_end(app, close, aclose)
        for name in ("do_teardown_request", "do_teardown_websocket"):
            _after(app, name, _sharing_request, aclose)


def _sharing_request() -> Any:  # pragma: no cover - of a version
    """Return the current request or websocket context if it has no app context."""
    for variable in (_cv_request, _cv_websocket):
        context = variable.get(None)
        if context is not None and context._cv_tokens:
            return context if context._cv_tokens[-1][1] is None else None
    return None


def _after(
    app: Any, name: str, context: Callable[[], Any], aclose: CloseScopeAsync
) -> None:
    """Have a context closed after a method of the app, also if that raises."""
    teardown = getattr(app, name)

    async def teardown_and_close(*args: Any, **kwargs: Any) -> None:
        ending = context()
        try:
            await teardown(*args, **kwargs)
        finally:
            if ending is not None:
                await aclose(ending)

    setattr(app, name, teardown_and_close)


Current: type[QuartFramework] = (
    QuartFramework if _cv_request is None else EarlierQuartFramework
)
"""What suits the installed Quart."""
