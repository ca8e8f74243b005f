"""How does code that imports ``flask_sqlalchemy`` get Dualchemy instead?"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import flask

from . import models, naming, pagination, recording, signals, tables
from .extension import SQLAlchemy
from .query import Query
from .sessions import Session

__all__ = ["install_as_flask_sqlalchemy"]

_PACKAGE = "flask_sqlalchemy"
_VERSION = "3.1.1"
"""Of the Flask-SQLAlchemy whose names these are."""


def install_as_flask_sqlalchemy() -> None:
    """Have ``import flask_sqlalchemy`` give Dualchemy from now on, in the whole process,
    whether or not Flask-SQLAlchemy is installed.

    Call it before the packages are imported that do so. ``flask_sqlalchemy`` and its
    submodules then offer Dualchemy's counterparts under the names of Flask-SQLAlchemy
    3.1.1, all of them or, where this raises, none. A second call changes nothing.

    Where Flask-SQLAlchemy itself was imported already this warns (``RuntimeWarning``),
    with the names of the modules that keep its classes, and takes its place for later
    imports.
    """
    stand_ins = _stand_ins()
    found = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == _PACKAGE and module is not None
    }
    genuine = {
        name for name, module in found.items() if module is not stand_ins.get(name)
    }
    if genuine:
        users = ", ".join(sorted(_users_of(genuine))) or "none that can be told"
        warnings.warn(
            "Flask-SQLAlchemy was imported before 'install_as_flask_sqlalchemy' was"
            f" called. These modules keep its classes: {users}. Call it first.",
            RuntimeWarning,
            stacklevel=2,
        )
    for name in genuine:
        del sys.modules[name]
    sys.modules.update(stand_ins)


def _users_of(modules: set[str]) -> set[str]:
    """Name the modules that hold one of these modules, or a class of it."""

    def is_theirs(value: object) -> bool:
        if isinstance(value, ModuleType):
            return value.__name__ in modules
        return isinstance(value, type) and value.__module__ in modules

    return {
        name
        for name, module in tuple(sys.modules.items())
        if name not in modules
        and isinstance(module, ModuleType)
        and any(map(is_theirs, tuple(vars(module).values())))
    }


@cache
def _stand_ins() -> dict[str, ModuleType]:
    """Return the package and its submodules by name."""
    package = _module(_PACKAGE, SQLAlchemy=SQLAlchemy, __version__=_VERSION)
    package.__all__ = ["SQLAlchemy"]  # type: ignore[attr-defined]
    package.__path__ = []  # a package: what it lacks is a ModuleNotFoundError
    modules = {_PACKAGE: package}
    for name, contents in _submodules().items():
        module = _module(f"{_PACKAGE}.{name}", **contents)
        modules[module.__name__] = module
        setattr(package, name, module)
    return modules


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name, "Dualchemy, under the names of Flask-SQLAlchemy.")
    # importlib.util.find_spec() answers with this.
    module.__spec__ = ModuleSpec(name, None, is_package=name == _PACKAGE)
    vars(module).update(contents)
    return module


def _submodules() -> dict[str, dict[str, Any]]:
    return {
        "cli": {"add_models_to_shell": _add_models_to_shell},
        "extension": {"SQLAlchemy": SQLAlchemy},
        "model": {
            "BindMetaMixin": models.BindMetaMixin,
            "BindMixin": models.BindMixin,
            "DefaultMeta": models.DefaultMeta,
            "DefaultMetaNoName": models.DefaultMetaNoName,
            # Packages derive mixins from it: no declarative base, as it is none there.
            "Model": models.ModelBehaviour,
            "NameMetaMixin": naming.NameMetaMixin,
            "NameMixin": naming.NameMixin,
            "camel_to_snake_case": naming.table_name,
            "should_set_tablename": naming.needs_table_name,
        },
        "pagination": {
            "Pagination": pagination.Pagination,
            "QueryPagination": pagination.QueryPagination,
            "SelectPagination": pagination.SelectPagination,
        },
        "query": {"Query": Query},
        "record_queries": {
            "_QueryInfo": recording.QueryInfo,
            "get_recorded_queries": recording.get_recorded_queries,
        },
        "session": {"Session": Session},
        "table": {"_Table": tables.Table},
        "track_modifications": {
            "before_models_committed": signals.before_models_committed,
            "models_committed": signals.models_committed,
        },
    }


def _add_models_to_shell() -> dict[str, Any]:
    db: SQLAlchemy = flask.current_app.extensions["sqlalchemy"]
    return db._shell_context()
