"""How does a command of ``flask`` or ``quart`` run that is a coroutine function?"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import update_wrapper
from typing import Any, ParamSpec, TypeVar, overload

import click

from .errors import ContextError
from .frameworks import app_of_command

__all__ = ["with_appcontext"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def with_appcontext(
    function: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, T]: ...


@overload
def with_appcontext(function: Callable[P, T]) -> Callable[P, T]: ...


def with_appcontext(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run the callback of a click command, a coroutine function as a rule, in an app
    context, in the command lines of both frameworks.

    The context is new, and the event loop is too: the connections used on it are closed
    before the command ends. What the function raises, :class:`SystemExit` included,
    leaves the command; Ctrl-C cancels it. Where an event loop runs already, in an async
    test say, the function has its own in a thread meanwhile.

    A plain function is called on the event loop, as by Quart's decorator of this name.

    :param function: What ``@app.cli.command()`` and the decorators of options are given.
    :raises ContextError: when the command is run neither by ``flask``, ``quart`` or
        ``app.test_cli_runner()`` nor in an app context.
    """

    @click.pass_context
    def callback(command: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        found = app_of_command(command)
        if found is None:
            raise ContextError(
                f"The command {command.command_path!r} was run outside of an application."
                " Add it to one, by '@app.cli.command()', and run it by 'flask', 'quart'"
                " or 'app.test_cli_runner()', or run it in an app context."
            )
        framework, app = found

        async def main() -> Any:
            async with framework.app_context(app):
                result = function(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

        return _run(main, command)

    return update_wrapper(callback, function)


def _run(main: Callable[[], Coroutine[Any, Any, Any]], command: click.Context) -> Any:
    if asyncio._get_running_loop() is None:
        return asyncio.run(main())

    def run() -> Any:
        with command.scope(cleanup=False):  # click has a current context per thread
            return asyncio.run(main())

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(copy_context().run, run).result()
