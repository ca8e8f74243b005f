"""How is a test kept from leaving a trace?

An isolation takes one connection a bind from the pool of an engine, begins a transaction
on it, and has every engine of the app connect to that one until it ends and rolls back.
Which engine's is decided by the API that it is made with: by ``db.sync`` a connection of
a sync driver, by ``db.aio`` one of an async driver, on the running event loop. The other
API is served by the same one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import Pool, QueuePool, StaticPool

from ..config import Bind
from ..engines import Engines
from ..errors import IsolationError
from ..urls import API
from .connections import AsyncReal, IsolatedPool, Real
from .transactions import Transaction


class Isolation:
    """All engines of an app on one connection a bind.

    :param engines: The app's.
    :param api: Whose drivers connect. The async API's do on the running event loop, or
        on the first one that uses a connection.
    """

    def __init__(self, engines: Engines, api: API) -> None:
        self.api = api
        self._engines = engines
        self._loop: asyncio.AbstractEventLoop | None = None
        self._primary: Callable[[str | None], Engine] | None = None
        """Finds the engine that a connection is of."""
        self._own: dict[Engine, tuple[Pool, Dialect]] = {}
        """What the engines had before."""
        self._binds: dict[Engine, Bind] = {}
        self._reals: dict[str | None, Real] = {}
        self._lock = threading.Lock()
        self._levels: list[dict[Real, Transaction]] = []
        """The transactions around which inner isolations are."""

    def begin(self) -> None:
        """Isolate all engines, made and to be made.

        :raises IsolationError: if there are connections in use.
        """
        if self.api == "sync" or asyncio._get_running_loop() is not None:
            self._settle()
        try:
            self._engines.watch(self._isolate)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Roll back, and let go of the engines."""
        self._engines.unwatch(self._isolate)
        with ExitStack() as stack:
            for engine, own in self._own.items():
                stack.callback(_set, engine, own)
            for real in self._reals.values():
                stack.callback(real.end)

    def _settle(self) -> None:
        """Decide whose connections these are."""
        if self.api == "sync":
            self._primary = self._engines.sync.__getitem__
        else:
            loops = self._engines.aio()
            self._loop = loops.loop
            self._primary = lambda key: loops.map[key].sync_engine
        for engine, bind in self._binds.items():
            self._take_dialect(engine, bind)

    def begin_level(self) -> None:
        """Begin an isolation inside this one."""
        level: dict[Real, Transaction] = {}
        for real in self._opened():
            level[real] = real.run(real.begin_level)
        self._levels.append(level)

    def end_level(self) -> None:
        """End the innermost isolation inside this one."""
        for real, transaction in self._levels.pop().items():
            if real.stack.broken is None and not real.is_gone:
                real.run(real.stack.undo, transaction)

    def _opened(self) -> list[Real]:
        return [real for real in self._reals.values() if real.connection is not None]

    def _isolate(self, engine: Engine, bind: Bind, api: API) -> None:
        if _is_in_use(engine.pool):
            raise IsolationError(
                f"{bind.path}: the {api} engine has connections in use, which would not be"
                " isolated. Close the sessions that use them first, by"
                " 'db.session.remove()' or by leaving their app context."
            )
        if api != self.api:
            self._check_same_database(bind)
        self._own[engine] = engine.pool, engine.dialect
        self._binds[engine] = bind
        engine.pool = IsolatedPool(lambda: self._real(bind.key), engine.dialect)
        if self._primary is not None:
            self._take_dialect(engine, bind)

    def _take_dialect(self, engine: Engine, bind: Bind) -> None:
        """Have an engine speak as the one does that is connected."""
        assert self._primary is not None
        primary = self._primary(bind.key)
        if engine is not primary:
            engine.dialect = engine.pool._dialect = self._own_of(primary)[1]

    def _own_of(self, engine: Engine) -> tuple[Pool, Dialect]:
        return self._own.get(engine) or (engine.pool, engine.dialect)

    def _check_same_database(self, bind: Bind) -> None:
        places = {(url.host, url.port, url.database) for url in bind.urls.values()}
        if len(places) > 1:
            raise IsolationError(
                f"{bind.path}: the sync and the async API have databases of their own,"
                " which one connection cannot serve. Use one of them in an isolation."
            )

    def _real(self, key: str | None) -> Real:
        with self._lock:
            if self._primary is None:
                self._settle_now()
            real = self._reals.get(key) or self._make_real(key)
        real.run(real.open, self._levels)
        return real

    def _settle_now(self) -> None:
        if asyncio._get_running_loop() is None:
            raise IsolationError(
                "The sync API was used in an isolation of async connections before the"
                " async one, and there is no event loop for them. Use 'db.aio' first, or"
                " 'db.sync.isolation()'."
            )
        self._settle()

    def _make_real(self, key: str | None) -> Real:
        assert self._primary is not None
        pool, dialect = self._own_of(self._primary(key))
        real = self._reals[key] = (
            Real(pool, dialect)
            if self._loop is None
            else AsyncReal(pool, dialect, self._loop)
        )
        return real


def _set(engine: Engine, own: tuple[Pool, Dialect]) -> None:
    engine.pool, engine.dialect = own


def _is_in_use(pool: Pool) -> bool:
    if isinstance(pool, QueuePool):
        return pool.checkedout() > 0
    shared = vars(pool).get("connection") if isinstance(pool, StaticPool) else None
    return shared is not None and shared.in_use


@contextmanager
def isolate(engines: Engines, api: API) -> Iterator[None]:
    """Isolate the databases of an app, or what is done inside an isolation of them."""
    outer = engines.isolation
    if outer is not None:
        outer.begin_level()
        try:
            yield
        finally:
            outer.end_level()
        return
    isolation = Isolation(engines, api)
    isolation.begin()
    engines.isolation = isolation
    try:
        yield
    finally:
        engines.isolation = None
        isolation.end()
