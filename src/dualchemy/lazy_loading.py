"""What is said when an attribute of an async session's object is touched and not loaded?

SQLAlchemy loads it there and then on a sync session. On an async one it cannot, for
nothing awaits, and says so in terms of greenlets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from .errors import LazyLoadError


def refuse_lazy_load(statement: Any, execution_options: Mapping[str, Any]) -> NoReturn:
    """Raise the error for a statement that nothing awaits.

    What it loads is in options that SQLAlchemy keeps to itself; where they are not found
    the message is a general one.
    """
    loading = execution_options.get("_sa_orm_load_options")
    compiling = getattr(statement, "_compile_options", None)
    owner = getattr(loading, "_lazy_loaded_from", None)
    path = getattr(compiling, "_current_path", None)
    if owner is not None and path:
        raise LazyLoadError(_relationship(owner.class_.__name__, path[-1].key))
    owner = getattr(loading, "_refresh_state", None)
    names = getattr(compiling, "_only_load_props", None)
    if owner is not None and names:
        raise LazyLoadError(_column(owner.class_.__name__, sorted(names)))
    raise LazyLoadError(
        "A statement was run on the sync session inside an async one, and nothing awaits"
        " it. Use the async session: 'await db.session.execute(...)'. A dynamic"
        " relationship is such a statement: write a select(), or make it"
        " 'lazy=\"write_only\"' and select from user.posts.select()."
    )


def _relationship(owner: str, name: str) -> str:
    return (
        f"'{owner}.{name}' is not loaded, and an async session cannot load it when it is"
        f" touched. Load it with the statement,"
        f" select({owner}).options(selectinload({owner}.{name})), or await it:"
        f" await {owner.lower()}.awaitable_attrs.{name}."
    )


def _column(owner: str, names: list[str]) -> str:
    touched = " and ".join(f"'{owner}.{name}'" for name in names)
    return (
        f"{touched}: expired or deferred, and an async session cannot load it when it is"
        f" touched. Load it first: await db.session.refresh({owner.lower()}), or await"
        f" it: await {owner.lower()}.awaitable_attrs.{names[0]}."
    )
