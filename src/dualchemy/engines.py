"""Which engine connects to a bind, and how is it made?

Nothing else in the library creates an engine. Sync engines live as long as their app, and
async ones as long as an event loop; see :mod:`dualchemy.loops`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import pool as sa_pool
from sqlalchemy.engine import URL, Engine, engine_from_config
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import Pool, StaticPool

from .config import Bind, Config
from .connections import (
    MemoryDatabase,
    begin_before_savepoints,
    close_whatever_is_cancelled,
    connect_outside_contexts,
    dispose,
    finish_what_was_sent,
    forget_server_cursors,
    ping_when_idle,
    set_pragmas,
)
from .engine_map import EngineMap
from .errors import ConfigError, ContextError, MissingDriverError
from .loops import LoopEngines
from .pools import AsyncAdaptedQueuePool, QueuePool
from .urls import API, for_api

if TYPE_CHECKING:
    # Type checkers only: a Flask user without async views never imports these.
    from sqlalchemy.ext.asyncio import AsyncEngine

    from .testing.isolation import Isolation  # only a test has one

Instrument = Callable[[Engine], None]
Watcher = Callable[[Engine, Bind, API], None]


class Engines:
    """All engines of one app.

    :param share_memory_connection: On the sync API, give an in-memory SQLite database
        one connection for all (a ``StaticPool``), as users of Flask-SQLAlchemy know it.
    :param instrument: Called with each new engine, to add event listeners.
    """

    def __init__(
        self,
        config: Config,
        *,
        share_memory_connection: bool,
        instrument: Instrument | None = None,
    ) -> None:
        self.binds: Mapping[str | None, Bind] = config.binds
        self._share_memory_connection = share_memory_connection
        self._instrument = instrument
        self._memory: dict[str | None, MemoryDatabase] = {}
        self.sync: EngineMap[Engine] = EngineMap(
            config.binds,
            self._make_sync,
            lambda engine, bind: self._tell(engine, bind, "sync"),
        )
        self._loops: dict[asyncio.AbstractEventLoop, LoopEngines] = {}
        self._last: LoopEngines | None = None
        self._lock = threading.Lock()
        self._watchers: list[Watcher] = []
        self.isolation: Isolation | None = None
        """That of a test, if there is one."""
        weakref.finalize(self, _dispose_all, self.sync.made)
        _all_engines.add(self)

    def aio(self) -> LoopEngines:
        """Return the engines of the running event loop.

        :raises ContextError: if no event loop runs in this thread.
        """
        loop = asyncio._get_running_loop()
        last = self._last
        if last is not None and last.loop is loop:
            return last
        if loop is None:
            raise ContextError(
                "The async API was used where no event loop is running. Use 'db.sync'"
                " here, or call this from an 'async def' function."
            )
        return self._engines_of(loop)

    def _engines_of(self, loop: asyncio.AbstractEventLoop) -> LoopEngines:
        with self._lock:
            for gone in [one for one in self._loops if one.is_closed()]:
                self._loops.pop(gone).abandon()
            engines = self._loops.get(loop)
            if engines is None:
                engines = LoopEngines(
                    loop,
                    self.binds,
                    self._make_async,
                    lambda engine, bind: self._tell(engine.sync_engine, bind, "async"),
                    self._forget,
                )
                self._loops[loop] = engines
            self._last = engines
            return engines

    def _forget(self, engines: LoopEngines) -> None:
        with self._lock:
            if self._loops.get(engines.loop) is engines:
                del self._loops[engines.loop]
            if self._last is engines:
                self._last = None

    def loop_of(self, engines: object) -> asyncio.AbstractEventLoop | None:
        """Return the event loop whose engines these are, if it is there still."""
        for loop, each in tuple(self._loops.items()):
            if each.sync_map is engines and not loop.is_closed():
                return loop
        return None

    def watch(self, watcher: Watcher) -> None:
        """Call a function with each engine that there is, and from now on with each one
        that is made.
        """
        self._watchers.append(watcher)
        for engine, bind, api in tuple(self._made()):
            watcher(engine, bind, api)

    def unwatch(self, watcher: Watcher) -> None:
        """Call a function no more."""
        self._watchers.remove(watcher)

    def _tell(self, engine: Engine, bind: Bind, api: API) -> None:
        for watcher in tuple(self._watchers):
            watcher(engine, bind, api)

    def _made(self) -> Iterator[tuple[Engine, Bind, API]]:
        for key, engine in self.sync.made.items():
            yield engine, self.binds[key], "sync"
        for loop_engines in tuple(self._loops.values()):
            for key, async_engine in loop_engines.map.made.items():
                yield async_engine.sync_engine, self.binds[key], "async"

    def dispose_sync(self) -> None:
        """Close the pooled connections of the sync engines."""
        _dispose_all(self.sync.made)

    async def dispose_async(self) -> None:
        """Close the pooled connections of the running event loop's engines."""
        engines = self._loops.get(asyncio.get_running_loop())
        if engines is not None:
            await engines.dispose()

    def leave_to_parent(self) -> None:  # pragma: no cover - in a child process
        """In a forked process, let go of the connections of the parent, whose sockets
        both now hold, without a word to the server.
        """
        # Another thread may have held these at the fork.
        self._lock, self.sync._lock = threading.Lock(), threading.Lock()
        for engines in self._loops.values():
            engines.leave_to_parent()
        _of_parent.extend(self._loops.values())
        self._loops.clear()
        self._last = None
        for engine in self.sync.made.values():
            _of_parent.append(engine.pool)
            engine.dispose(close=False)

    def _make_sync(self, bind: Bind) -> Engine:
        engine: Engine = self._create(bind, "sync", _engine)
        self._prepare(engine, bind, "sync")
        return engine

    def _make_async(self, bind: Bind) -> AsyncEngine:
        from sqlalchemy.ext.asyncio import async_engine_from_config

        def make(options: dict[str, Any]) -> AsyncEngine:
            return async_engine_from_config(options, prefix="")

        engine: AsyncEngine = self._create(bind, "async", make)
        if "async_creator" not in bind.options["async"]:
            connect_outside_contexts(engine.sync_engine)
        finish_what_was_sent(engine.sync_engine)
        self._prepare(engine.sync_engine, bind, "async")
        return engine

    def _create(
        self, bind: Bind, api: API, make: Callable[[dict[str, Any]], Any]
    ) -> Any:
        url = for_api(bind.urls[api], api, bind.path)
        options = dict(bind.options[api])
        pool = self._pool_class(bind, api, url)
        if pool is not None:
            options["poolclass"] = pool
        try:
            engine = make({**options, "url": url})
        except ImportError as error:
            raise MissingDriverError(
                f"{bind.path}: the driver of {url.drivername!r} is installed but cannot"
                f" be imported: {error}"
            ) from error
        except (TypeError, ValueError, ArgumentError) as error:
            raise ConfigError(
                f"{bind.path}: SQLAlchemy refused the engine options for the {api} API:"
                f" {error}"
            ) from None
        if isinstance(engine.pool, QueuePool):
            engine.pool.options_path = bind.options_path
        return engine

    def _pool_class(self, bind: Bind, api: API, url: URL) -> type[Pool] | None:
        """Return our form of the pool that the options or the dialect ask for; ``None``
        if there is none.
        """
        options = bind.options[api]
        asked: type[Pool] | None = options.get("poolclass")
        if options.get("pool") is not None:
            return None
        if asked is None and bind.in_memory(api):
            shared = api == "sync" and self._share_memory_connection
            asked = StaticPool if shared else sa_pool.QueuePool
        if asked is None:
            asked = cast("type[DefaultDialect]", url.get_dialect()).get_pool_class(url)
        if asked in {sa_pool.QueuePool, sa_pool.AsyncAdaptedQueuePool}:
            return QueuePool if api == "sync" else AsyncAdaptedQueuePool
        return asked

    def _prepare(self, engine: Engine, bind: Bind, api: API) -> None:
        if bind.in_memory(api) and "creator" not in bind.options[api]:
            with self._lock:
                if bind.key not in self._memory:
                    self._memory[bind.key] = MemoryDatabase()
            self._memory[bind.key].serve(engine)
        ping_after = bind.ping_after[api]
        if ping_after is not None:
            ping_when_idle(engine, ping_after)
        if engine.dialect.driver in {"pysqlite", "aiosqlite"}:
            begin_before_savepoints(engine)
        if engine.dialect.driver == "aiosqlite":
            close_whatever_is_cancelled(engine)
        if engine.dialect.driver == "psycopg":
            forget_server_cursors(engine)
        if bind.pragmas:
            set_pragmas(engine, bind.pragmas)
        if self._instrument is not None:
            self._instrument(engine)


_all_engines: weakref.WeakSet[Engines] = weakref.WeakSet()
_of_parent: list[object] = []
"""What a forked process keeps, so that nothing of it is closed by the garbage collector,
which could tell the server.
"""


def _after_fork() -> None:  # pragma: no cover - in a child process
    for engines in tuple(_all_engines):
        engines.leave_to_parent()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def _engine(options: dict[str, Any]) -> Engine:
    return engine_from_config(options, prefix="")


def _dispose_all(engines: Mapping[str | None, Engine]) -> None:
    for engine in tuple(engines.values()):
        dispose(engine)
