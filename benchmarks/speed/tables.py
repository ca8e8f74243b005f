"""Tables of ratios, from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .racing import DRIVER, LOADS
from .rows import (
    CHECKED,
    DUALCHEMY,
    FLASK,
    FLOOR,
    INSTRUCTIONS_PER_MICROSECOND,
    MEMORY,
    MODULES,
    QSA,
    QUART,
    ROWS,
    TOLERANCE,
    Budget,
)

Raw = dict[str, Any]
"""What a run measured, as it is in the file."""


@dataclass(frozen=True)
class Outcome:
    """How Dualchemy stands to a budget."""

    framework: str
    row: str
    budget: Budget
    ratio: float
    allowed: float

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.allowed

    @property
    def fails(self) -> bool:
        """Whether it is missed by more than the noise of a count."""
        return self.ratio > self.allowed * TOLERANCE

    @property
    def title(self) -> str:
        return f"{self.framework.title()}: {ROWS[self.row].title}"

    @property
    def reference(self) -> str:
        other = self.budget.row
        return f"{self.budget.against}{f', {ROWS[other].title}' if other else ''}"

    def __str__(self) -> str:
        return (
            f"{self.title}: {self.ratio:.3f} of {self.reference},"
            f" budget {self.allowed:.2f}"
        )


def checked_titles() -> list[str]:
    return [ROWS[name].title for name in CHECKED]


def outcomes(counted: dict[str, float]) -> list[Outcome]:
    """Compare the counts with all budgets for which there are any."""
    found = []
    for name, row in ROWS.items():
        for framework, budgets in row.budgets.items():
            ours = counted.get(f"{framework}/{DUALCHEMY}/{name}")
            for budget in budgets:
                job = f"{framework}/{budget.against}/{budget.row or name}"
                theirs = counted.get(job)
                if ours is None or theirs is None:
                    continue
                extra = budget.microseconds * INSTRUCTIONS_PER_MICROSECOND
                extra *= row.operations / theirs
                allowed = budget.ratio + extra
                found.append(Outcome(framework, name, budget, ours / theirs, allowed))
    return found


def ratios(counted: dict[str, float], framework: str) -> tuple[list[str], list[list]]:
    """Return the head and the lines of a table: rows by contenders, in ratios to the
    floor, or to Dualchemy where there is none.
    """
    jobs = [job.split("/") for job in counted]
    there = {contender for group, contender, _ in jobs if group == framework}
    rows = {row for group, _, row in jobs if group == framework}
    columns = [c for c in _order(framework) if c in there]
    lines = []
    for name in (name for name in ROWS if name in rows):
        base = counted.get(f"{framework}/{FLOOR}/{name}")
        against = FLOOR if base else DUALCHEMY
        base = base or counted.get(f"{framework}/{DUALCHEMY}/{name}")
        if base is None:
            continue
        cells = [counted.get(f"{framework}/{each}/{name}") for each in columns]
        shown = [f"{cell / base:.2f}" if cell else "" for cell in cells]
        if against != FLOOR:
            shown = [f"{cell} \\*" if cell else "" for cell in shown]
        lines.append([ROWS[name].title, *shown])
    return ["", *columns], lines


def races(heats: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the lines of a table of throughput and p99, in ratios to the
    floor of the same round: the median, and the quartiles.
    """
    columns: dict[str, dict[str, Any]] = {}
    """Contenders, and the heat of each."""
    for heat in heats:
        columns |= {c: heat for c in next(iter(heat.values())) if c != FLOOR}
    order = sorted(columns, key=[*FLASK[:-1], QSA, DRIVER, DUALCHEMY].index)
    lines = [
        [
            f"{LOADS[name].title}: {what}",
            *(_paired(columns[each][name], each, number) for each in order),
        ]
        for name in heats[0]
        for number, what in enumerate(("throughput", "p99"))
    ]
    return ["", *order], lines


def _paired(measured: dict[str, Any], contender: str, number: int) -> str:
    pairs = zip(measured[contender], measured[FLOOR], strict=True)
    paired = [result[number] / floor[number] for result, floor in pairs]
    low, middle, high = statistics.quantiles(paired, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def facts(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the lines of a table of imports and memory."""
    imports = found["imports"]
    lines = [
        [title, *(str(each.get("modules", "failed")) for each in found[key].values())]
        for title, key in (("modules, import", "imports"), ("modules, app", "set up"))
    ]
    for name, size in found["memory"].items():
        ratio = f"{size[DUALCHEMY] / size[FLOOR]:.2f}"
        cells = [ratio if each == DUALCHEMY else "" for each in imports]
        lines.append([f"memory, idle {name}", *cells])
    return ["", *imports], lines


def fact_outcomes(found: dict[str, Any]) -> list[tuple[str, str, str, str, bool]]:
    """Return what was measured beside counts and races, against what, how it stands to
    its budget, and whether that is met.
    """
    imported = found["imports"][DUALCHEMY]
    if "error" in imported:
        return []
    number, unwanted = imported["modules"], imported["unwanted"]
    results = [
        (
            "modules, import",
            "Flask and ``sqlalchemy.orm``",
            str(number),
            str(MODULES),
            number <= MODULES and not unwanted,
        )
    ]
    for name, size in found["memory"].items():
        ratio = size[DUALCHEMY] / size[FLOOR]
        title = f"memory, idle {name}"
        results.append((title, FLOOR, f"{ratio:.2f}", f"{MEMORY:.2f}", ratio <= MEMORY))
    return results


def _order(framework: str) -> Sequence[str]:
    return FLASK if framework == "flask" else QUART


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    table = [head, rule, *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def rest(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [list(head), *map(list, lines)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(head))]
    rule = "  ".join("=" * max(width, 2) for width in widths)
    # An empty first cell would continue the line above.
    shown = [
        "  ".join(
            (cell or ("\\" if n == 0 else "")).ljust(max(width, 2))
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([rule, shown[0], rule, *shown[1:], rule])
