"""Which engines have been made, and which one does a bind key or a mapper mean?"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from .config import Bind
from .errors import UnknownBindKeyError, show_url

E = TypeVar("E")


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
                try:
                    self._tell(self.made[key], bind)
                except BaseException:
                    del self.made[key]  # which a test's isolation refused
                    raise
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
