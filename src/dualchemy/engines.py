"""Which engine connects to a bind, and how long does it live?

Nothing else in the library creates or disposes an engine. Sync engines live as long as
their app. Async engines live as long as the event loop that they were made on, for a
connection of asyncpg, psycopg or aiosqlite cannot be used on another.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from sqlalchemy import pool as sa_pool
from sqlalchemy.engine import URL, Engine, engine_from_config
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, Pool, StaticPool
from sqlalchemy.util import greenlet_spawn

from .config import Bind, Config
from .connections import (
    MemoryDatabase,
    begin_before_savepoints,
    close_all,
    close_whatever_is_cancelled,
    connect_outside_contexts,
    dispose,
    finish_what_was_sent,
    forget_server_cursors,
    keep_on_loop,
    ping_when_idle,
    set_pragmas,
    terminate_all,
)
from .errors import (
    ConfigError,
    ContextError,
    MissingDriverError,
    UnknownBindKeyError,
    show_url,
)
from .pools import AsyncAdaptedQueuePool, QueuePool
from .shielding import GRACE
from .urls import API, for_api

if TYPE_CHECKING:
    # Type checkers only: a Flask user without async views never imports these.
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from .testing.isolation import Isolation  # only a test has one

E = TypeVar("E")

Instrument = Callable[[Engine], None]
Watcher = Callable[[Engine, Bind, API], None]


class EngineMap(Mapping[str | None, E], Generic[E]):
    """Bind keys to engines; each engine is made when it is first asked for."""

    def __init__(
        self,
        binds: Mapping[str | None, Bind],
        make: Callable[[Bind], E],
        tell: Callable[[E, Bind], None] = lambda engine, bind: None,
    ) -> None:
        self._binds = binds
        self._make = make
        self._tell = tell
        self.ended: bool = False
        """Whether the event loop that the engines belonged to has ended."""
        self.made: dict[str | None, E] = {}
        self.by_mapper: dict[int, E] = {}
        """Engines by the ids of mappers; see :meth:`remember`."""
        self._mappers: dict[int, weakref.ref[object]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, key: str | None) -> E:
        try:
            return self.made[key]
        except KeyError:
            return self._make_once(key)

    def _make_once(self, key: str | None) -> E:
        with self._lock:
            if key not in self._binds:
                raise UnknownBindKeyError(key, self._binds)
            if key not in self.made:
                bind = self._binds[key]
                self.made[key] = self._make(bind)
                self._tell(self.made[key], bind)
            return self.made[key]

    def remember(self, mapper: object, engine: E) -> None:
        """Keep the engine of a mapper at hand, as long as both live."""
        key = id(mapper)
        by_mapper, mappers = self.by_mapper, self._mappers

        def forget(_: object) -> None:
            by_mapper.pop(key, None)
            mappers.pop(key, None)

        mappers[key] = weakref.ref(mapper, forget)
        by_mapper[key] = engine

    def end(self) -> None:
        """Note that the event loop of the engines has ended."""
        self.ended = True
        self.by_mapper.clear()

    def __contains__(self, key: object) -> bool:
        return key in self._binds

    def __iter__(self) -> Iterator[str | None]:
        return iter(self._binds)

    def __len__(self) -> int:
        return len(self._binds)

    def copy(self) -> dict[str | None, E]:
        """Return a dict of all engines, which may be changed. Flask-SQLAlchemy's
        ``engines`` is a dict, and packages copy it.
        """
        return dict(self)

    def __repr__(self) -> str:
        urls = {key: show_url(bind.url) for key, bind in self._binds.items()}
        return f"<{type(self).__name__} {urls}>"


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


def keep_for_parent(thing: object) -> None:  # pragma: no cover - in a child process
    """In a forked process, keep what is the parent's, and is not to be closed here."""
    _of_parent.append(thing)


def _after_fork() -> None:  # pragma: no cover - in a child process
    for engines in tuple(_all_engines):
        engines.leave_to_parent()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


class LoopEngines:
    """The async engines of one event loop, and what must end before it does.

    The loop says that it ends by closing its asynchronous generators, as
    :meth:`asyncio.loop.shutdown_asyncgens` documents; :func:`asyncio.run`, servers and
    test runners call it. One of those generators is ours. For code that closes its loop
    without this, :class:`_CloseLoop` does it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        binds: Mapping[str | None, Bind],
        make: Callable[[Bind], AsyncEngine],
        tell: Callable[[AsyncEngine, Bind], None],
        forget: Callable[[LoopEngines], None],
    ) -> None:
        self.loop = loop
        self._make = make
        self._records: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()
        self.map: EngineMap[AsyncEngine] = EngineMap(binds, self._make_on_loop, tell)
        self.sync_map: EngineMap[Engine] = EngineMap(
            binds, lambda bind: self.map[bind.key].sync_engine
        )
        """The same engines as a session sees them, inside the greenlet bridge."""
        self._sessions: dict[AsyncSession, weakref.ref[object]] = {}
        """Open sessions and the app contexts that they belong to."""
        self._closing: set[asyncio.Task[None]] = set()
        self._forget = forget
        self._end = self._until_loop_ends()
        with suppress(StopIteration):
            # Runs to the yield; the loop's hook notices the generator on the way.
            self._end.asend(None).send(None)
        _CloseLoop.stand_in(loop, self)

    def _make_on_loop(self, bind: Bind) -> AsyncEngine:
        engine = self._make(bind)
        keep_on_loop(engine.sync_engine, self.loop, self._records)
        return engine

    @property
    def ended(self) -> bool:
        """Whether everything is closed or let go of."""
        return self.sync_map.ended

    async def end(self) -> None:
        """Close everything, unless it is closed."""
        await self._end.aclose()

    async def _until_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if not self.ended:
                self.sync_map.end()
                self._forget(self)
                await self._close_everything()

    async def _close_everything(self) -> None:
        try:
            await self._close_sessions()
        finally:
            records = list(self._records)  # which disposing of a pool would let go of
            try:
                async with asyncio.timeout(GRACE):
                    for engine in tuple(self.map.made.values()):
                        await greenlet_spawn(close_all, engine.sync_engine, records)
            except TimeoutError:
                await greenlet_spawn(terminate_all, records)

    def hold(self, session: AsyncSession, context: object) -> None:
        """Hold a session until it is let go of, and close it if its app context is gone
        before, or the loop ends. A context whose push was cancelled is never popped.
        """
        self._sessions[session] = weakref.ref(
            context, lambda _: self.close_later(session)
        )

    def let_go(self, session: AsyncSession) -> None:
        """Leave the closing of a session to somebody else."""
        self._sessions.pop(session, None)

    def close_later(self, session: AsyncSession) -> None:
        """Close a session that is held where it cannot be awaited: on its own loop, at
        once if that is running, else when it ends.
        """
        if session in self._sessions and self.loop.is_running():
            self.loop.call_soon_threadsafe(self._close_soon, session)

    def _close_soon(self, session: AsyncSession) -> None:
        def closed(task: asyncio.Task[None]) -> None:
            self._closing.discard(task)
            if not task.cancelled() and task.exception() is None:
                self.let_go(session)

        task = self.loop.create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(closed)

    async def _close_sessions(self) -> None:
        if self._closing:
            await asyncio.wait(self._closing)
        while self._sessions:
            session, _ = self._sessions.popitem()
            await session.close()

    async def dispose(self) -> None:
        """Close all pooled connections."""
        for engine in tuple(self.map.made.values()):
            await greenlet_spawn(dispose, engine.sync_engine)

    def leave_to_parent(self) -> None:  # pragma: no cover - in a child process
        """Close nothing when the loop ends, for a forked process has it from its parent,
        with the sockets.
        """
        self.sync_map.end()

    def abandon(self) -> None:
        """Let go of everything, for the loop is closed and nothing can be awaited: it
        was closed past :class:`_CloseLoop`, by ``close`` of its class.
        """
        self.sync_map.end()
        self._sessions.clear()
        for engine in self.map.made.values():
            engine.sync_engine.dispose(close=False)


class _CloseLoop:
    """Stands in for ``loop.close``, to end the loop's engines first.

    asyncio tells nobody that a loop closes, and afterwards nothing can be closed in
    order: a transport of asyncpg needs its loop for that, and the thread of aiosqlite
    answers to it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._close = loop.close
        self._ends: weakref.WeakSet[LoopEngines] = weakref.WeakSet()

    @classmethod
    def stand_in(cls, loop: asyncio.AbstractEventLoop, engines: LoopEngines) -> None:
        """Have the engines end before the loop is closed."""
        attributes = vars(loop)
        close = attributes.get("close")
        if not isinstance(close, cls):
            close = attributes["close"] = cls(loop)
        close._ends.add(engines)

    def __call__(self) -> None:
        loop = self._loop
        if loop.is_running():
            self._close()  # which refuses
            return
        try:
            engines = [each for each in self._ends if not each.ended]
            if engines:
                self._run(_end_all(engines))
        finally:
            del vars(loop)["close"]
            self._close()

    def _run(self, ending: Coroutine[Any, Any, None]) -> None:
        if asyncio._get_running_loop() is None:
            self._loop.run_until_complete(ending)
            return
        # Another loop runs in this thread.
        thread = threading.Thread(target=self._loop.run_until_complete, args=[ending])
        thread.start()
        thread.join()


async def _end_all(engines: Iterable[LoopEngines]) -> None:
    """End engines; report what goes wrong as ``shutdown_asyncgens`` does."""
    loop = asyncio.get_running_loop()
    for each in engines:
        try:
            await each.end()
        except Exception as error:  # noqa: BLE001 - the others must end too
            message = f"Database connections could not be closed before {loop!r}"
            loop.call_exception_handler({"message": message, "exception": error})


def _engine(options: dict[str, Any]) -> Engine:
    return engine_from_config(options, prefix="")


def _dispose_all(engines: Mapping[str | None, Engine]) -> None:
    for engine in tuple(engines.values()):
        dispose(engine)
