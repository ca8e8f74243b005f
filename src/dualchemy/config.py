"""What did the user configure?

:func:`read_config` turns ``app.config`` into immutable objects, once, in ``init_app``.
Every mistake that can be seen without a connection or a driver is one
:exc:`.ConfigError` that begins with the path of the key. Nothing deeper in the library
reads ``app.config``.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.util import get_cls_kwargs

from .errors import ConfigError, did_you_mean, hide_password
from .urls import API, check_dialect, normalize

URI = "SQLALCHEMY_DATABASE_URI"
BINDS = "SQLALCHEMY_BINDS"
OPTIONS = "SQLALCHEMY_ENGINE_OPTIONS"

PING_AFTER = 1.0
"""The default of ``pool_ping_after``, in seconds."""

Options = Mapping[str, Any]
"""Arguments of :func:`sqlalchemy.create_engine`; the values are as varied as those."""


@dataclass(frozen=True, slots=True)
class Bind:
    """One bind, as configured: where its database is and how to connect to it.

    ``path`` is the config key that a message about this bind should begin with, and
    ``options_path`` the one that its options are in.
    """

    key: str | None
    path: str
    options_path: str
    urls: Mapping[API, URL]
    options: Mapping[API, Options]
    pragmas: Mapping[str, str | int]
    ping_after: Mapping[API, float | None]
    """After how many idle seconds a connection is pinged; ``None`` for never."""

    @property
    def url(self) -> URL:
        """The URL that was configured for the bind itself."""
        return self.urls["sync"]

    def in_memory(self, api: API) -> bool:
        """Tell whether this is SQLite's in-memory database."""
        url = self.urls[api]
        return is_sqlite(url) and (url.database or ":memory:") == ":memory:"


@dataclass(frozen=True, slots=True)
class Config:
    """All of an app's ``SQLALCHEMY_*`` configuration, checked."""

    binds: Mapping[str | None, Bind]
    record_queries: bool
    track_modifications: bool


def read_config(
    config: MutableMapping[str, Any],
    engine_options: Options,
    instance_path: str,
) -> Config:
    """Read and check the ``SQLALCHEMY_*`` keys.

    Missing keys are set to their defaults, as extensions for Flask do.

    :param config: ``app.config``.
    :param engine_options: Defaults for every bind, from the constructor of ``db``.
    :param instance_path: Where a relative SQLite path begins; created if one is used.
    :raises ConfigError: for each kind of mistake; the message names the key.
    """
    uri = config.setdefault(URI, None)
    default_options = _mapping(config.setdefault(OPTIONS, {}), OPTIONS)
    binds = _mapping(config.setdefault(BINDS, {}), BINDS)
    echo = _echo(config.setdefault("SQLALCHEMY_ECHO", False), "SQLALCHEMY_ECHO")
    raw: dict[str | None, tuple[str, dict[str, Any]]] = {}

    for key, value in binds.items():
        if not isinstance(key, str | None):
            raise ConfigError(
                f"{BINDS}: the bind key {key!r} is {_a(key)}. Bind keys are strings,"
                " or None for the default bind."
            )
        path = f'{BINDS}["{key}"]' if key is not None else f"{BINDS}[None]"
        raw[key] = path, {**engine_options, **_bind_options(value, path)}

    path, default = raw.pop(None, (OPTIONS, dict(engine_options)))
    default.update(default_options)
    if uri is not None:
        path, default["url"] = URI, uri
    if None in binds or "url" in default:
        raw = {None: (path, default), **raw}

    if not raw:
        raise ConfigError(
            f"Either '{URI}' or '{BINDS}' must be set before init_app is called, for"
            f' example app.config["{URI}"] = "sqlite:///app.db".{_near_miss(config)}'
        )

    return Config(
        binds=MappingProxyType(
            {
                key: _read_bind(key, path, options, echo, instance_path)
                for key, (path, options) in raw.items()
            }
        ),
        record_queries=bool(config.setdefault("SQLALCHEMY_RECORD_QUERIES", False)),
        track_modifications=bool(
            config.setdefault("SQLALCHEMY_TRACK_MODIFICATIONS", False)
        ),
    )


def _bind_options(value: object, path: str) -> Mapping[str, Any]:
    if isinstance(value, str | URL):
        return {"url": value}
    if isinstance(value, Mapping):
        return value
    raise ConfigError(
        f"{path}: expected a URL or a dict of engine options with the key 'url', got"
        f" {_a(value)}."
    )


def _read_bind(
    key: str | None,
    path: str,
    options: dict[str, Any],
    echo: bool | str,
    instance_path: str,
) -> Bind:
    if options.get("url") is None:
        raise ConfigError(
            f"{path}: the key 'url' is missing. A bind is a URL, or a dict with 'url'"
            " and engine options."
        )
    # The default bind's URL and options come from two keys.
    url_path, options_path = (URI, OPTIONS) if path == URI else (f'{path}["url"]', path)
    overrides = {
        api: _mapping(options.pop(api, {}), f'{options_path}["{api}"]')
        for api in ("sync", "async")
    }
    pragmas = options.pop("pragmas", {})
    ping_after = options.pop("pool_ping_after", PING_AFTER)
    ping: dict[API, float | None] = {}
    main_url = _read_url(options.pop("url"), url_path)
    urls: dict[API, URL] = {}
    merged: dict[API, Options] = {}

    for api in ("sync", "async"):
        override = dict(overrides[api])
        url = main_url
        seconds = override.pop("pool_ping_after", ping_after)
        _check_seconds(seconds, f'{options_path}["pool_ping_after"]')
        if "url" in override:
            url = _read_url(override.pop("url"), f'{options_path}["{api}"]["url"]')
        arguments = {"echo": echo, "echo_pool": echo, **options, **override}
        _check_options(url, options, options_path)
        _check_options(url, override, f'{options_path}["{api}"]')
        urls[api], defaults = _driver_defaults(url, arguments, instance_path)
        merged[api] = MappingProxyType({**defaults, **arguments})
        # A file does not go away, and pre_ping means always.
        needs_ping = not is_sqlite(url) and not arguments.get("pool_pre_ping")
        ping[api] = seconds if needs_ping else None

    return Bind(
        key=key,
        path=path,
        options_path=options_path,
        urls=MappingProxyType(urls),
        options=MappingProxyType(merged),
        ping_after=MappingProxyType(ping),
        pragmas=_read_pragmas(pragmas, main_url, f'{options_path}["pragmas"]'),
    )


def _read_url(value: object, path: str) -> URL:
    match value:
        case URL():
            url = value
        case str():
            url = parse_url(value, path)
        case Mapping():
            url = _assemble_url(value, path)
        case _:
            raise ConfigError(f"{path}: expected a database URL, got {_a(value)}.")
    url = normalize(url)
    check_dialect(url, path)
    return url


def parse_url(value: str, path: str) -> URL:
    """Read a URL.

    :raises ConfigError: if it is none; the message hides its password.
    """
    try:
        return make_url(value)
    except (ArgumentError, ValueError):
        # The cause is cut off: its text may show the password.
        raise ConfigError(
            f"{path}: {hide_password(value)} is not a database URL. Write it as"
            " dialect://user:password@host:port/database, with special characters in"
            " the password percent-encoded, or give a dict for URL.create()."
        ) from None


_URL_FIELDS = (
    "drivername",
    "username",
    "password",
    "host",
    "port",
    "database",
    "query",
)


def _assemble_url(parts: Mapping[str, Any], path: str) -> URL:
    for name in parts:
        if name not in _URL_FIELDS:
            raise ConfigError(
                f"{path}: unknown part {name!r}. A URL has"
                f" {', '.join(_URL_FIELDS)}.{did_you_mean(str(name), _URL_FIELDS)}"
            )
    if not parts.get("drivername"):
        raise ConfigError(
            f"{path}: the part 'drivername' is missing, for example 'postgresql'."
        )
    try:
        return URL.create(**parts)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}.") from None


def is_sqlite(url: URL) -> bool:
    """Tell whether the URL names SQLite, whichever driver serves it."""
    return url.get_backend_name() == "sqlite"


def _driver_defaults(
    url: URL, arguments: Options, instance_path: str
) -> tuple[URL, dict[str, Any]]:
    """Return the URL and the options with Flask-SQLAlchemy's defaults for SQLite and
    MySQL applied.
    """
    if is_sqlite(url):
        return _in_instance_path(url, instance_path), {}
    if url.get_backend_name() in {"mysql", "mariadb"}:
        defaults: dict[str, Any] = {}
        poolclass = arguments.get("poolclass")
        if poolclass is None or "Queue" in poolclass.__name__:
            # The server closes a connection that was idle for wait_timeout, 8 hours.
            defaults["pool_recycle"] = 7200
        if "charset" not in url.query and not url.drivername.endswith("connector"):
            url = url.update_query_dict({"charset": "utf8mb4"})
        return url, defaults
    return url, {}


def _in_instance_path(url: URL, instance_path: str) -> URL:
    if url.database is None or url.database in {"", ":memory:"}:
        return url
    # The URL may be one of SQLite's own: sqlite:///file:path?uri=true
    prefix = "file:" if url.query.get("uri") else ""
    path = url.database.removeprefix(prefix)
    if Path(path).is_absolute():
        return url
    folder = Path(instance_path)
    folder.mkdir(parents=True, exist_ok=True)
    return url.set(database=f"{prefix}{folder / path}")


# https://docs.sqlalchemy.org/en/20/core/engines.html#sqlalchemy.create_engine.params
_ENGINE_OPTIONS = frozenset(
    [
        "async_creator",
        "connect_args",
        "creator",
        "echo",
        "echo_pool",
        "enable_from_linting",
        "execution_options",
        "future",
        "hide_parameters",
        "implicit_returning",
        "insertmanyvalues_page_size",
        "isolation_level",
        "json_deserializer",
        "json_serializer",
        "label_length",
        "logging_name",
        "max_identifier_length",
        "max_overflow",
        "module",
        "paramstyle",
        "plugins",
        "pool",
        "pool_logging_name",
        "pool_pre_ping",
        "pool_recycle",
        "pool_reset_on_return",
        "pool_size",
        "pool_timeout",
        "pool_use_lifo",
        "poolclass",
        "query_cache_size",
        "skip_autocommit_rollback",
        "use_insertmanyvalues",
    ]
)
_OWN_OPTIONS = frozenset({"async", "pool_ping_after", "pragmas", "sync"})


def _check_options(url: URL, options: Options, path: str) -> None:
    _mapping(options.get("connect_args"), f'{path}["connect_args"]')
    _echo(options.get("echo"), f'{path}["echo"]')
    if not isinstance(options.get("poolclass"), type | None):
        raise ConfigError(
            f'{path}["poolclass"]: expected a class of sqlalchemy.pool, got'
            f" {_a(options['poolclass'])}."
        )
    if "plugin" in url.query or "plugins" in options:
        return  # A CreateEnginePlugin takes options of its own.
    for name in options:
        if name in _ENGINE_OPTIONS:
            continue
        known = {*_ENGINE_OPTIONS, *_dialect_options(url)}
        if poolclass := options.get("poolclass"):
            known |= get_cls_kwargs(poolclass)
        if name not in known:
            raise ConfigError(
                f"{path}: unknown engine option {name!r} for"
                f" {url.drivername!r}.{did_you_mean(str(name), sorted(known | _OWN_OPTIONS))}"
                " Options are those of sqlalchemy.create_engine(); what goes to the"
                " driver belongs into 'connect_args'."
            )


def _dialect_options(url: URL) -> Iterator[str]:
    for is_async in (False, True):
        yield from get_cls_kwargs(url.get_dialect(_is_async=is_async))


def _read_pragmas(value: object, url: URL, path: str) -> Mapping[str, str | int]:
    pragmas = _mapping(value, path)
    if not pragmas:
        return MappingProxyType({})
    if not is_sqlite(url):
        raise ConfigError(
            f"{path}: pragmas are SQLite's, and the bind is {url.drivername!r}."
        )
    known = _known_pragmas()
    for name, setting in pragmas.items():
        if known and str(name).lower() not in known:
            raise ConfigError(
                f"{path}: SQLite has no pragma {name!r}.{did_you_mean(name, known)}"
            )
        if not isinstance(setting, str | int) or (
            isinstance(setting, str) and not re.fullmatch(r"-?\w+", setting)
        ):
            raise ConfigError(
                f'{path}["{name}"]: expected a word, a number or a bool, got'
                f" {setting!r}."
            )
    return MappingProxyType(
        {name: int(v) if isinstance(v, bool) else v for name, v in pragmas.items()}
    )


@cache
def _known_pragmas() -> frozenset[str]:
    """SQLite ignores a pragma that it does not know, so a slip would go unseen."""
    with closing(sqlite3.connect(":memory:")) as connection:
        return frozenset(name for (name,) in connection.execute("PRAGMA pragma_list"))


def _check_seconds(value: object, path: str) -> None:
    if value is None or (
        isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    ):
        return
    raise ConfigError(
        f"{path}: expected a number of seconds, or None for never, got {value!r}."
    )


def _mapping(value: object, path: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: expected a dict, got {_a(value)}.")
    return value


def _echo(value: object, path: str) -> bool | str:
    if value == "debug":
        return "debug"
    if value in (None, False, True):
        return bool(value)
    raise ConfigError(f"{path}: expected True, False or 'debug', got {value!r}.")


def _near_miss(config: Mapping[str, Any]) -> str:
    for name in config:
        if name != URI and get_close_matches(name, [URI, BINDS], n=1, cutoff=0.8):
            if name in {BINDS, OPTIONS}:
                continue
            return f" The config has {name!r}; is it misspelled?"
    return ""


def _a(value: object) -> str:
    """Name the type of a wrong value; the value itself might be a secret."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
