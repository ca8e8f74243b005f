"""What may a caller ask of a page, and what does the request ask?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, TypedDict

from ..errors import did_you_mean
from ..frameworks import abort, current_request

Count: TypeAlias = bool | int | Literal["estimate"]

LARGEST = 2**63 - 1
"""The largest row number: a signed 64-bit integer in every supported database."""

DEFAULT_PER_PAGE = 20


class PageOptions(TypedDict, total=False):
    """The keyword arguments of ``paginate``. :class:`.BasePagination` has the defaults."""

    page: int | None
    """The number of the page, from 1."""
    per_page: int | None
    """The number of items on a page."""
    max_per_page: int | None
    """The limit of ``per_page``, or ``None``."""
    error_out: bool
    """Whether a page that cannot be is ``404 Not Found``."""
    count: Count
    """How the total is found: exactly, up to a bound, by estimate, or not at all."""


def check_keywords(function: str, given: Iterable[str], options: type[Any]) -> None:
    """Refuse keyword arguments that are not keys of a ``TypedDict``.

    :raises TypeError: as Python does, with the name that was probably meant.
    """
    known = options.__annotations__
    for name in given:
        if name not in known:
            raise TypeError(
                f"{function}() got an unexpected keyword argument"
                f" {name!r}.{did_you_mean(name, known)}"
            )


def read_number(name: str, value: int | None, default: int, error_out: bool) -> int:
    """Return the argument, else what the request says, else the default; what is not a
    positive integer is a ``404 Not Found``, or the default.

    :raises TypeError: if the argument is given and not an int.
    """
    if value is None:
        request = current_request()
        try:
            value = default if request is None else int(request.args.get(name, default))
        except ValueError:  # also for text of thousands of digits
            value = 0
    elif not isinstance(value, int):
        raise TypeError(f"{name}: expected an int, got {value!r}.")
    if value >= 1:
        return value
    if error_out:
        abort(404)
    return default


def read_per_page(value: int | None, limit: int | None, error_out: bool) -> int:
    """Return the number of items on a page, from the argument or the request.

    :param limit: What it is cut down to, or ``None``.
    :raises ValueError: if the limit is not positive.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"max_per_page: expected a positive int or None, got {limit}.")
    per_page = read_number("per_page", value, DEFAULT_PER_PAGE, error_out)
    return min(per_page, LARGEST if limit is None else limit)


def check_count(count: object) -> None:
    """Refuse what cannot be the ``count`` argument.

    :raises TypeError: if it is neither a bool, an int nor ``"estimate"``.
    :raises ValueError: if it is a bound that is not positive.
    """
    if isinstance(count, bool) or count == "estimate":
        return
    if not isinstance(count, int):
        raise TypeError(
            f"count: expected a bool, an int (the number to count to) or 'estimate', got"
            f" {count!r}."
        )
    if count < 1:
        raise ValueError(f"count: expected a positive number to count to, got {count}.")
