"""Write ``docs/performance.rst`` from a run: ``python -m benchmarks.speed.document FILE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import tables
from .environments import ROOT

PAGE = ROOT / "docs" / "performance.rst"

HEAD = """\
Performance
===========

.. Written by "python -m benchmarks.speed.document"; change that, not this.

What Dualchemy costs, in ratios to what a careful engineer writes by hand for each request:
a ``sessionmaker`` or ``async_sessionmaker``, a session on ``g``, and a teardown function
that closes it. That is the *floor*. *bare* is the framework without a database, and *with*
is ``with sessionmaker()`` or ``async with`` in each view. Less is better, but for
throughput. ``\\*`` marks a row without a floor, in ratios to Dualchemy.

A number is reproduced with ``python -m benchmarks.speed --json run.json``, which makes the
environments it needs; add ``--url postgresql://...`` for the tables of wall time. It wants
valgrind, a C compiler, and for wall time a machine that does nothing else.
"""

COUNTED = """\
Instructions are counted by valgrind's callgrind, with the garbage collector off: those of
doing something 2n times less those of doing it n times. They do not depend on the
machine's load, and are good to about 1 % without a statement and 3 % with one. The database
is a SQLite file; on Quart it is behind aiosqlite's thread.
"""

RACED = """\
Over loopback from PostgreSQL, on waitress and hypercorn, with 20 connections: the
median ratio of paired rounds, and its quartiles. *driver alone* is psycopg or asyncpg
without SQLAlchemy.
"""


def heading(title: str) -> str:
    return f"{title}\n{'-' * len(title)}\n"


def budget_table(raw: tables.Raw, counted: dict[str, float]) -> str:
    lines = [
        [
            outcome.title,
            outcome.reference,
            f"{outcome.ratio:.2f}",
            f"{outcome.allowed:.2f}",
            "yes" if outcome.is_met else "no",
        ]
        for outcome in tables.outcomes(counted)
    ]
    for *cells, is_met in tables.fact_outcomes(raw["facts"]) if "facts" in raw else ():
        lines.append([*cells, "yes" if is_met else "no"])
    return tables.rest(["what", "against", "ratio", "budget", "met"], lines)


def page(raw: tables.Raw) -> str:
    parts = [HEAD]
    for name, measured in raw["environments"].items():
        title = "Instructions" if name == "current" else f"Instructions, {name}"
        parts.append(heading(title))
        if "failed" in measured:
            parts.append(
                f"This environment cannot be made::\n\n    {measured['failed']}\n"
            )
            continue
        pinned = ", ".join(f"``{each}``" for each in measured["requirements"])
        if name == "current":
            parts.append(COUNTED)
        parts.append(f"Measured with {pinned}.\n")
        for framework in ("flask", "quart"):
            head, lines = tables.ratios(measured["counted"], framework)
            if lines:
                parts.append(f"On {framework.title()}:\n")
                parts.append(tables.rest(head, lines) + "\n")
        if tables.outcomes(measured["counted"]):
            parts.append(heading("Budgets"))
            parts.append(
                "What Dualchemy allows itself. A row that is over by 4 % fails CI"
                f" ({', '.join(tables.checked_titles())}).\n"
            )
            parts.append(budget_table(raw, measured["counted"]) + "\n")
    if "facts" in raw:
        parts.append(heading("Imports and memory"))
        parts.append(
            "Modules on top of Flask and ``sqlalchemy.orm``: those that the import loads,"
            " and those that are there when an app is set up for SQLite. Flask-SQLAlchemy"
            " has made its engine then; Dualchemy makes it when it is first used, and"
            " loads the dialect with it. And the memory of an idle session, to"
            " SQLAlchemy's own.\n"
        )
        parts.append(tables.rest(*tables.facts(raw["facts"])) + "\n")
    if "races" in raw:
        parts.append(heading("Throughput"))
        parts.append(RACED)
        for name, races in raw["races"].items():
            for framework, found in races.items():
                where = "" if name == "current" else f", in the environment of {name}"
                parts.append(f"On {framework.title()}{where}:\n")
                parts.append(tables.rest(*tables.races(found)) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(Path(sys.argv[1]).read_text())))
