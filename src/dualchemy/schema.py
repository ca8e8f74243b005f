"""Which metadata does ``create_all`` (``drop_all``, ``reflect``) run on?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import sqlalchemy as sa

from .errors import UnknownBindKeyError
from .routing import Metadatas

Operation = Literal["create_all", "drop_all", "reflect"]
BindKeys = str | None | Sequence[str | None]

ALL = "__all__"


def targets(
    metadatas: Metadatas, configured: Collection[str | None], bind_key: BindKeys
) -> list[tuple[str | None, sa.MetaData]]:
    """Return the bind keys that are meant, each with its metadata.

    :raises UnknownBindKeyError: if one is not configured.
    """
    # An app whose binds all have names need not configure a default.
    every = [key for key in metadatas if key in configured or metadatas[key].tables]
    keys = bind_keys(configured, bind_key, every)
    return [(key, metadatas.of(key)) for key in keys]


def bind_keys(
    configured: Collection[str | None],
    bind_key: BindKeys,
    every: Collection[str | None] | None = None,
) -> list[str | None]:
    """Return the bind keys that are meant.

    :param every: What ``ALL`` stands for, if not for all that are configured.
    :raises UnknownBindKeyError: if one is not configured.
    """
    keys: Collection[str | None]
    if bind_key == ALL:
        keys = configured if every is None else every
    elif bind_key is None or isinstance(bind_key, str):
        keys = [bind_key]
    else:
        keys = bind_key
    for key in keys:
        if key not in configured:
            raise UnknownBindKeyError(key, configured)
    return list(keys)
