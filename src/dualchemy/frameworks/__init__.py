"""Which framework is running, and what does it do its own way?

Everything that differs between Flask and Quart is behind :class:`.base.Framework`;
nothing else in the library asks which one it is in. The half of each is imported only
when an application needs it.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click
import werkzeug.exceptions
from werkzeug.sansio.request import Request

if TYPE_CHECKING:
    from .base import AppContext, Framework

__all__ = [
    "abort",
    "app_of_command",
    "current",
    "current_context",
    "current_framework",
    "current_request",
    "framework_of",
    "is_pushed",
    "load",
    "secret_keys",
]

_loaded: list[Framework] = []
_found: set[str] = set()
_lock = threading.Lock()


def framework_of(app: Any) -> Framework:
    """Return the framework that an application belongs to.

    :raises TypeError: if it is neither a Flask nor a Quart application.
    """
    load()
    for framework in _loaded:
        if framework.owns(app):
            return framework
    raise TypeError(
        f"init_app: expected a Flask or Quart application, got {type(app).__name__!r}."
    )


def app_of_command(command: click.Context) -> tuple[Framework, Any] | None:
    """Return the application that a command is run for: of the command line, else of the
    active app context; ``None`` if there is neither.
    """
    load()
    for framework in _loaded:
        app = framework.app_of_command(command)
        if app is not None:
            return framework, app
    active, context = current()
    return None if active is None or context is None else (active, context.app)


def load() -> bool:
    """Know of the frameworks from now on that the application uses.

    :return: Whether there is news.
    """
    # An application can only be a framework's if its own module has imported that.
    used = {name for name in ("flask", "quart") if sys.modules.get(name) is not None}
    if used <= _found:
        return False
    with _lock:
        for name in sorted(used - _found):
            _loaded.append(import_module(f".{name}", __name__).Current())
            _found.add(name)
    return True


def is_pushed(context: AppContext) -> bool:
    """Tell whether an app context is active somewhere. Flask and Quart do not say, but
    keep what undoes the push.
    """
    if getattr(context, "_cv_token", None) is not None:
        return True
    return bool(getattr(context, "_cv_tokens", None))  # before Flask 3.2, Quart 0.23


def current() -> tuple[Framework | None, AppContext | None]:
    """Return the framework that has an active app context, and that.

    Where both have one (a test that holds a Flask context while it calls a Quart
    client, say), it is the one that runs code the way the caller runs: Quart on an
    event loop, Flask elsewhere.
    """
    found: tuple[Framework | None, AppContext | None] = None, None
    for framework in _loaded:
        context = framework.context()
        if context is not None and (found[0] is None or framework.runs_here()):
            found = framework, context
    if found[0] is None and load():
        return current()  # of an app that no init_app has seen
    return found


def current_framework() -> Framework | None:
    """Return the framework that has an active app context."""
    return current()[0]


def current_context() -> AppContext | None:
    """Return the active app context of :func:`current_framework`."""
    return current()[1]


def current_request() -> Request | None:
    """Return the current HTTP request, if there is one."""
    framework = current_framework()
    return None if framework is None else framework.request()


def secret_keys() -> tuple[str | bytes, ...]:
    """Return the current app's ``SECRET_KEY``, after its ``SECRET_KEY_FALLBACKS``; empty
    if it has none.
    """
    context = current_context()
    if context is None or not context.app.secret_key:
        return ()
    fallbacks = context.app.config.get("SECRET_KEY_FALLBACKS") or ()
    return *fallbacks, context.app.secret_key


def abort(code: int, description: str | None = None) -> NoReturn:
    """Raise the HTTP exception for a status code, as the current app defines it."""
    framework = current_framework()
    if framework is None:
        werkzeug.exceptions.abort(code, description=description)
    framework.abort(code, description)
