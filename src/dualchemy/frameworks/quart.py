"""What is Quart's own way?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import quart
from quart.globals import _cv_app

from .base import AppContext, CloseScope, CloseScopeAsync


class QuartFramework:
    """Quart 0.20 and later; from 0.23 on there is one kind of context."""

    name = "Quart"
    is_async = True

    def owns(self, app: object) -> bool:
        return isinstance(app, quart.Quart)

    def context(self) -> AppContext | None:
        return _cv_app.get(None)

    def runs_here(self) -> bool:
        return asyncio._get_running_loop() is not None

    def request_args(self) -> Mapping[str, str] | None:
        return quart.request.args if quart.has_request_context() else None

    def abort(self, code: int, description: str | None = None) -> NoReturn:
        quart.abort(code, description=description)

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
        teardown = app.do_teardown_appcontext

        async def do_teardown_appcontext(*args: Any, **kwargs: Any) -> None:
            context = _cv_app.get()
            try:
                await teardown(*args, **kwargs)
            finally:
                await aclose(context)

        app.do_teardown_appcontext = do_teardown_appcontext

    def on_shutdown(self, app: Any, dispose: Callable[[], Awaitable[None]]) -> None:
        app.after_serving(dispose)

    def add_shell_context(
        self, app: Any, processor: Callable[[], dict[str, Any]]
    ) -> None:
        app.shell_context_processor(processor)
