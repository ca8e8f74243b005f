"""How does a place in an order travel through a client, and come back unchanged?

A cursor is JSON, signed with the app's ``SECRET_KEY`` and encoded for URLs. It names the
order that it was made for, so that it opens no page of another one. Nothing in it is
secret, and nothing of it is unpickled or run.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode, want_bytes
from itsdangerous.signer import SigningAlgorithm

from ..errors import ConfigError
from ..frameworks import secret_keys
from .ordering import Key

FORMAT = 1
"""Part of every order's name: cursors of another release's format are out of date."""

_to_json = json.JSONEncoder(separators=(",", ":")).encode


class CursorError(ValueError):
    """A cursor that opens no page; the message is for whoever sent it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins, and in which direction it is read."""

    values: tuple[Any, ...] | None = None
    """The values of the order's keys; ``None`` for the beginning, or the end."""
    backwards: bool = False


class Cursors:
    """The cursors of one order, in the current app.

    :param keys: The keys of the order.
    :param order: Its :func:`name <name_of>`.
    :raises ConfigError: if the app has no ``SECRET_KEY``.
    """

    def __init__(self, keys: Sequence[Key], order: str) -> None:
        secrets = secret_keys()
        if not secrets:
            raise ConfigError(
                "SECRET_KEY: paginate_keyset signs its cursors with it, and the app has"
                ' none. Set app.config["SECRET_KEY"] to a random text that stays the'
                " same: python -c 'import secrets; print(secrets.token_hex())'."
            )
        self._keys = keys
        self._order = order
        self._signer = _signer(secrets)

    def dump(self, place: Place) -> str:
        """Return the cursor of a place.

        :raises TypeError: if it has a value that no cursor can hold.
        """
        values = None
        if place.values is not None:
            values = [
                _encode(value, key)
                for value, key in zip(place.values, self._keys, strict=True)
            ]
        payload = [self._order, int(place.backwards), values]
        return self._signer.sign(base64_encode(_to_json(payload))).decode()

    def load(self, cursor: str) -> Place:
        """Return the place of a cursor; the beginning, if it is empty.

        :raises CursorError: if it was not made by this app for this order.
        """
        if not cursor:
            return Place()
        try:
            text = base64_decode(self._signer.unsign(cursor))
        except (BadData, UnicodeError):
            raise CursorError(
                "The cursor is damaged, or was not made by this site. Begin again at the"
                " first page."
            ) from None
        order, backwards, values = json.loads(text)
        if order != self._order:
            raise CursorError(
                "The cursor was made for another order of rows, or is out of date. Begin"
                " again at the first page."
            )
        decoded = None if values is None else tuple(map(_decode, values))
        return Place(decoded, bool(backwards))


class _Sha256(SigningAlgorithm):
    """HMAC with SHA-256 in one call, for a page is signed and checked in each request."""

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return hmac.digest(key, value, "sha256")


@lru_cache(maxsize=16)
def _signer(secrets: tuple[str | bytes, ...]) -> Signer:
    keys = [
        hmac.digest(want_bytes(key), b"dualchemy.cursor", "sha256") for key in secrets
    ]
    return Signer(keys, key_derivation="none", algorithm=_Sha256())


def name_of(keys: Sequence[Key], dialect: sa.Dialect) -> str:
    """Return a short name of an order on a database, the same in each process."""
    parts = [f"{FORMAT} {dialect.name}"]
    for key in keys:
        direction = "desc" if key.descending else "asc"
        nulls = "nulls first" if key.nulls_first else "nulls last"
        kind = type(key.expression.type).__name__
        parts.append(f"{_text(key.expression, dialect)} {kind} {direction} {nulls}")
    digest = hashlib.blake2b("\n".join(parts).encode(), digest_size=9).digest()
    return base64.urlsafe_b64encode(digest).decode()


def _text(expression: sa.ColumnElement[Any], dialect: sa.Dialect) -> str:
    if isinstance(expression, sa.Column) and isinstance(expression.table, sa.Table):
        return f"{expression.table.fullname}.{expression.name}"
    compiled = expression.compile(dialect=dialect)
    return f"{compiled} {sorted(compiled.params.items())!r}"


_KINDS: dict[str, tuple[type[Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    # datetime before date, of which it is a subclass
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "timedelta": (
        timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: timedelta(*parts),
    ),
    "Decimal": (Decimal, str, Decimal),
    "UUID": (UUID, str, UUID),
    "float": (float, repr, float),  # JSON has no NaN and no infinity
    "bytes": (
        bytes,
        lambda value: base64.b64encode(value).decode(),
        base64.b64decode,
    ),
}


def _encode(value: Any, key: Key) -> Any:
    if value is None or type(value) in {bool, int, str}:
        return value
    for name, (kind, encode, _) in _KINDS.items():
        if isinstance(value, kind):
            return [name, encode(value)]
    raise TypeError(
        f"paginate_keyset: a cursor cannot hold the {type(value).__name__} of"
        f" '{key.expression}'. Order by a form of it that is text or a number, such as"
        " cast(column, String)."
    )


def _decode(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    name, encoded = value
    return _KINDS[name][2](encoded)
