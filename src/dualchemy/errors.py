"""Which exceptions are Dualchemy's own?

::

    DualchemyError
     ├── ConfigError (RuntimeError)            a config key or argument is wrong
     ├── MissingDriverError (ImportError)      the driver of a URL is not installed
     ├── ContextError (RuntimeError)           the wrong app context, or none
     ├── ConcurrentUseError                    two tasks, one async session
     │     (sqlalchemy.exc.IllegalStateChangeError)
     ├── IsolationError (RuntimeError)         a test's isolation cannot hold
     ├── LazyLoadError (MissingGreenlet)       touched, not loaded, on an async session
     ├── PoolTimeoutError (sqlalchemy.exc.TimeoutError)   no connection came free
     └── UnknownBindKeyError                   a bind key without a configured bind
           (sqlalchemy.exc.UnboundExecutionError, KeyError)

Each also derives from the exception that Flask-SQLAlchemy 3.1 raises in the same place,
so ``except`` clauses written for it go on working. A message never holds a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DontWrapMixin,
    IllegalStateChangeError,
    MissingGreenlet,
    UnboundExecutionError,
)
from sqlalchemy.exc import TimeoutError as SATimeoutError

__all__ = [
    "ConcurrentUseError",
    "ConfigError",
    "ContextError",
    "DualchemyError",
    "IsolationError",
    "LazyLoadError",
    "MissingDriverError",
    "PoolTimeoutError",
    "UnknownBindKeyError",
]


class DualchemyError(Exception):
    """The base class of every exception that Dualchemy defines."""


class ConfigError(DualchemyError, RuntimeError):
    """A config key or an argument is missing, malformed or unknown.

    The message begins with the path of the key, for example
    ``SQLALCHEMY_BINDS["reports"]["pool_size"]``.
    """


class MissingDriverError(DualchemyError, ImportError):
    """No installed driver serves the URL on the API that was used.

    Raised when an engine is first needed, not by ``init_app``.
    """


class ContextError(DualchemyError, RuntimeError):
    """There is no app context, or it belongs to an app that ``db`` does not serve."""


class ConcurrentUseError(DualchemyError, IllegalStateChangeError):
    """A second task used an async session while another awaited it. The first goes on
    undisturbed.
    """


class IsolationError(DualchemyError, DontWrapMixin, RuntimeError):
    """In a test's isolation, something cannot be kept from other connections."""


class LazyLoadError(DualchemyError, MissingGreenlet):
    """An attribute of an async session's object was touched, and was not loaded."""


class PoolTimeoutError(DualchemyError, SATimeoutError):
    """All connections of a pool were in use, and none came free in time."""

    def __init__(self, where: str, size: int, overflow: int, seconds: float) -> None:
        super().__init__(
            f"{where}: all {size + overflow} connections of the pool ('pool_size'"
            f" {size}, 'max_overflow' {overflow}) were in use, and none came free within"
            f" {seconds:g} seconds ('pool_timeout'). Close sessions sooner, above all"
            " before waiting for something else, or raise these options.",
            code="3o7r",
        )


class UnknownBindKeyError(DualchemyError, UnboundExecutionError, KeyError):
    """A model, a table or a call names a bind key that the app did not configure."""

    def __init__(self, key: str | None, known: Iterable[str | None]) -> None:
        names = list(known)
        if key is None:
            message = (
                "There is no default bind: 'SQLALCHEMY_DATABASE_URI' is not set."
                f" Set it, or give a bind key: {join_keys(names)}."
            )
        else:
            message = (
                f"Bind key {key!r} is not in 'SQLALCHEMY_BINDS' config, which has"
                f" {join_keys(names)}.{did_you_mean(key, names)}"
            )
        super().__init__(message)
        self.key = key


def join_keys(keys: Iterable[str | None]) -> str:
    """Name bind keys for a reader, ``None`` as what it stands for."""
    return (
        ", ".join("None (the default)" if k is None else repr(k) for k in keys)
        or "no binds at all"
    )


def did_you_mean(word: str, candidates: Iterable[str | None]) -> str:
    """Return `` Did you mean 'x'?``, or nothing where no candidate is close."""
    close = get_close_matches(word, [c for c in candidates if c is not None], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def show_url(url: URL) -> str:
    """Show a URL without its password, also where that is among its parameters."""
    return _SECRET_QUERY.sub(r"\1***", url.render_as_string(hide_password=True))


_SECRET_QUERY = re.compile(
    r"(?i)\b([a-z_]*(?:password|passwd|pwd|secret|token)[a-z_]*=)[^&\s]*"
)


def hide_password(value: object) -> str:
    """Show the text of a URL, well-formed or not, without any secret it may hold."""
    text = repr(str(value))
    head, at, tail = text.rpartition("@")
    if at:
        text = f"{head.partition(':')[0]}:***@{tail}"
    return _SECRET_QUERY.sub(r"\1***", text)
