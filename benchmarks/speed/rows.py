"""Which rows have the tables, who is compared in each, and what may Dualchemy cost?

This module imports nothing that has to be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

FLOOR, BARE, WITH, DUALCHEMY = "floor", "bare", "with", "Dualchemy"
FSA, LITE = "Flask-SQLAlchemy", "Flask-SQLAlchemy-Lite"
ADVANCED, ALCHEMICAL = "Advanced Alchemy", "Alchemical"
QSA = "Quart-SQLAlchemy"

FLASK = (FLOOR, BARE, WITH, FSA, LITE, ADVANCED, ALCHEMICAL, DUALCHEMY)
QUART = (FLOOR, BARE, WITH, QSA, DUALCHEMY)
WITH_SESSIONS = tuple(name for name in (*FLASK, QSA) if name != BARE)

TOLERANCE = 1.04
"""By how much more than its budget a row fails the check, which is for changes of the
code and not for the noise of a count.
"""

INSTRUCTIONS_PER_MICROSECOND = 5000
"""What CPython executes within a microsecond on a machine of these years: a walk through
a select's clauses is 142,000 instructions, and took 27 microseconds.
"""

MODELS = 500

MODULES = 12
"""How many modules the import of Dualchemy may load on top of what it needs."""

MEMORY = 1.05
"""The budget for an idle session, to SQLAlchemy's own."""

TRACKING = {"SQLALCHEMY_TRACK_MODIFICATIONS": True}
RECORDING = {"SQLALCHEMY_RECORD_QUERIES": True}

Prepare = Callable[[Any], Callable[[int], None]]
"""Given a contender on a framework, returns what does the work so many times."""


@dataclass(frozen=True)
class Budget:
    """What Dualchemy may cost: this ratio to a contender."""

    ratio: float
    against: str = FLOOR
    row: str | None = None
    """The row of the other, if it is not the same."""
    microseconds: float = 0
    """What may come on top."""


@dataclass(frozen=True)
class Row:
    """Something that is counted."""

    title: str
    prepare: Prepare
    budgets: Mapping[str, tuple[Budget, ...]]
    """By framework."""
    contenders: tuple[str, ...] = WITH_SESSIONS
    times: int = 10
    operations: int = 1
    """How many of them are done each time."""

    def runs(self, framework: str) -> tuple[str, ...]:
        """Return who takes part on a framework."""
        able = {"flask": FLASK, "quart": QUART}[framework]
        return tuple(name for name in able if name in self.contenders)


def both(*budgets: Budget) -> dict[str, tuple[Budget, ...]]:
    return {"flask": budgets, "quart": budgets}


def routed(title: str, binds: int, what: str, budget: Budget) -> Row:
    return Row(
        title,
        lambda on: on.routing(binds, what, MODELS),
        {"flask": (budget,)},
        (FLOOR, FSA, DUALCHEMY),
        times=2,
        operations=MODELS,
    )


ROWS: dict[str, Row] = {
    "context": Row(
        "context, no database",
        lambda on: on.context(),
        {"flask": (Budget(0.80, FSA), Budget(1.25, BARE)), "quart": ()},
        (*WITH_SESSIONS, BARE),
        times=40,
    ),
    "request": Row(
        "request, no database",
        lambda on: on.request("/ping"),
        both(Budget(1.02, BARE)),
        (*WITH_SESSIONS, BARE),
        times=20,
    ),
    "session": Row(
        "context and session",
        lambda on: on.session(),
        {
            "flask": (Budget(0.80),),
            "quart": (Budget(0.75), Budget(0.60, WITH)),
        },
        times=40,
    ),
    "light": Row(
        "context, session, light statement",
        lambda on: on.light(),
        both(Budget(0.96)),
        times=20,
    ),
    "by_key": Row(
        "request, row by key",
        lambda on: on.request("/items/7"),
        both(Budget(0.98)),
    ),
    "list": Row(
        "request, list of 20",
        lambda on: on.request("/items"),
        both(Budget(0.98)),
    ),
    "insert": Row(
        "request, insert and commit",
        lambda on: on.request("/items", "POST"),
        both(Budget(0.98)),
    ),
    "bind_1": routed("``get_bind``, 1 bind", 1, "orm", Budget(1.2)),
    "bind_10": routed("``get_bind``, 10 binds", 10, "orm", Budget(1.2)),
    "bind_100": routed("``get_bind``, 100 binds", 100, "orm", Budget(1.2)),
    "bind_core": routed(
        "``get_bind``, Core select, 100 binds", 100, "core", Budget(1, microseconds=2)
    ),
    "new": routed("new session, 1 bind", 1, "new", Budget(1.05)),
    "new_100": routed("new session, 100 binds", 100, "new", Budget(1.05)),
    "signals": Row(
        "insert and commit, signals on",
        lambda on: on.request("/items", "POST", TRACKING),
        both(Budget(1.02)),
        (FLOOR, FSA, DUALCHEMY),
    ),
    "receiver": Row(
        "insert and commit, one receiver",
        lambda on: on.request_with_receiver("/items", "POST", TRACKING),
        both(Budget(1.06)),
        (FLOOR, FSA, DUALCHEMY),
    ),
    "recording": Row(
        "light statement, recorded",
        lambda on: on.light(RECORDING),
        both(Budget(1.20, DUALCHEMY, "light")),
        (FSA, DUALCHEMY),
        times=20,
    ),
    "page": Row(
        "``paginate``, page 1 and count",
        lambda on: on.page(1, 20),
        {"flask": (Budget(1.0, FSA),)},
        (FSA, DUALCHEMY),
    ),
    "last_page": Row(
        "``paginate``, page not full",
        lambda on: on.page(4, 30),
        {"flask": (Budget(0.6, FSA),)},
        (FSA, DUALCHEMY),
    ),
}

CHECKED = ("request", "session", "light", "by_key")
"""The rows of the check."""
