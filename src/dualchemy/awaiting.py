"""What tells a user that an ``await`` is missing?"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


class HelperCall(Coroutine[Any, Any, T]):
    """The coroutine of a helper, such as ``db.get_or_404(...)``.

    It is awaited, gathered or made a task as any other. Used as if it were the result,
    it says what is missing, where a plain coroutine would have no such attribute.
    """

    __slots__ = ("_coroutine", "_name")

    def __init__(self, name: str, coroutine: Coroutine[Any, Any, T]) -> None:
        self._name = name
        self._coroutine = coroutine
        # Shown by Python's own warning, "coroutine '...' was never awaited".
        coroutine.__qualname__ = name  # type: ignore[attr-defined]

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *exception: Any) -> Any:
        return self._coroutine.throw(*exception)

    def close(self) -> None:
        self._coroutine.close()

    def __repr__(self) -> str:
        return f"<coroutine of {self._name}>"

    def __getattr__(self, attribute: str) -> Any:
        # Coroutines show their state under these names, which asyncio's debug mode and
        # inspect read.
        if attribute.startswith(("cr_", "_")):
            return getattr(self._coroutine, attribute)
        raise AttributeError(f"{self._missing()} before reading {attribute!r} of it.")

    def __iter__(self) -> NoReturn:
        raise TypeError(f"{self._missing()} before iterating over it.")

    def __getitem__(self, index: object) -> NoReturn:
        raise TypeError(f"{self._missing()} before indexing it.")

    def __len__(self) -> NoReturn:
        raise TypeError(f"{self._missing()} before taking its length.")

    def __bool__(self) -> bool:
        return True

    def _missing(self) -> str:
        return (
            f"'{self._name}(...)' was not awaited: under Quart and on 'db.aio', write"
            f" 'await {self._name}(...)'"
        )
