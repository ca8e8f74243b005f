"""What ends with an event loop, and what must be closed before it does?

Async engines live as long as the event loop that they were made on, for a connection of
asyncpg, psycopg or aiosqlite cannot be used on another.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn

from .config import Bind
from .connections import close_all, dispose, keep_on_loop, terminate_all
from .engine_map import EngineMap
from .shielding import GRACE

if TYPE_CHECKING:
    # Type checkers only: a Flask user without async views never imports these.
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession


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
