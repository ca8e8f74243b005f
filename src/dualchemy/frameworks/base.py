"""What must a framework tell the library?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, Protocol, TypeAlias

import click
from jinja2 import BaseLoader, ChoiceLoader, PackageLoader
from werkzeug.sansio.request import Request

# Flask's and Quart's contexts and apps share no base class. The library only reads
# ``context.app`` and ``app.extensions`` and sets one attribute of its own.
AppContext: TypeAlias = Any

CloseScope: TypeAlias = Callable[[AppContext], None]
CloseScopeAsync: TypeAlias = Callable[[AppContext], Awaitable[None]]


class Framework(Protocol):
    """The difference between Flask and Quart."""

    name: str
    is_async: bool
    """Whether views, and so the helpers of ``db``, are awaited."""

    def owns(self, app: object) -> bool:
        """Tell whether an application is this framework's."""
        ...

    def context(self) -> AppContext | None:
        """Return the active app context."""
        ...

    def runs_here(self) -> bool:
        """Tell whether the calling code could be this framework's view."""
        ...

    def request(self) -> Request | None:
        """Return the current HTTP request, if there is one."""
        ...

    def abort(self, code: int, description: str | None = None) -> NoReturn:
        """Raise the HTTP exception for a status code."""
        ...

    def app_of_command(self, command: click.Context) -> Any:
        """Return the app that a command of this framework's command line is of; ``None``
        if it is of another.
        """
        ...

    def app_context(self, app: Any) -> AbstractAsyncContextManager[Any]:
        """Return a new app context."""
        ...

    def run_async(self, app: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a coroutine function so that sync code can call it."""
        ...

    def on_context_end(
        self, app: Any, close: CloseScope, aclose: CloseScopeAsync
    ) -> None:
        """Have the one of the two functions that suits the framework called with each
        ending app context: after all teardown functions, also when one of them raises.
        """

    def on_shutdown(self, app: Any, dispose: Callable[[], Awaitable[None]]) -> None:
        """Have a coroutine function called when the server stops, if it can tell."""
        ...

    def add_templates(self, app: Any) -> None:
        """Offer the package's templates to an app, after those of its own."""
        ...

    def add_shell_context(
        self, app: Any, processor: Callable[[], dict[str, Any]]
    ) -> None:
        """Offer names to ``flask shell`` or ``quart shell``."""


def add_templates(app: Any) -> None:
    """Have an app look for a template in this package if it has none of the name.

    The environment is made when the app first renders, and reads its options then.
    """
    make = app.create_global_jinja_loader

    def create_global_jinja_loader() -> BaseLoader:
        return ChoiceLoader([make(), PackageLoader("dualchemy")])

    app.create_global_jinja_loader = create_global_jinja_loader
    if "jinja_env" in vars(app):
        app.jinja_env.loader = create_global_jinja_loader()
