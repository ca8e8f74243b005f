"""What does Dualchemy cost, against every peer and against a session by hand?

``python -m benchmarks.speed`` makes the environments that it needs, and prints tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import callgrind, racing, tables
from .environments import (
    CACHE,
    CURRENT,
    QUART_SQLALCHEMY,
    ROOT,
    Environment,
    SetupError,
)
from .rows import BARE, CHECKED, DUALCHEMY, FLOOR, QSA, ROWS, WITH

BATCH = 24
"""How many jobs are counted before the file is written again."""


def batched(wanted: list[str], size: int) -> list[list[str]]:
    return [wanted[n : n + size] for n in range(0, len(wanted), size)]


def jobs(environment: Environment, names: list[str]) -> list[str]:
    """Return what is counted in an environment."""
    found = []
    for name in names:
        if environment is QUART_SQLALCHEMY and QSA not in ROWS[name].contenders:
            continue
        for framework in ROWS[name].budgets:
            for contender in ROWS[name].runs(framework):
                if environment is CURRENT and contender == QSA:
                    continue
                if environment is QUART_SQLALCHEMY and (
                    framework == "flask" or contender not in {FLOOR, BARE, WITH, QSA}
                ):
                    continue
                found.append(f"{framework}/{contender}/{name}")
    return found


def measure(arguments: argparse.Namespace) -> tables.Raw:
    """Count what the arguments ask for, on top of what the file has."""
    file: Path | None = arguments.json
    raw: tables.Raw = {"environments": {}}
    if file is not None and file.is_file():
        raw = json.loads(file.read_text())
    names = [name for name in ROWS if not arguments.row or name in arguments.row]
    for environment in (CURRENT, QUART_SQLALCHEMY):
        found = raw["environments"].setdefault(environment.name, {})
        found.pop("failed", None)
        try:
            python = environment.make(arguments.cache)
        except SetupError as error:
            found["failed"] = str(error)
            continue
        found["requirements"] = environment.requirements
        wanted = [
            job
            for job in jobs(environment, names)
            if arguments.count
            and (not arguments.contender or job.split("/")[1] in arguments.contender)
        ]
        for batch in batched(wanted, BATCH):
            print(f"{environment.name}: {', '.join(batch)}", file=sys.stderr)
            counts = callgrind.count(python, batch, arguments.processes)
            found.setdefault("counted", {}).update(counts.counted)
            errors = found.setdefault("errors", {})
            for job in counts.counted:
                errors.pop(job, None)
            errors.update(counts.errors)
            if file is not None:
                file.write_text(json.dumps(raw, indent=1))
    if not arguments.row:
        for environment in (CURRENT, QUART_SQLALCHEMY):
            python = arguments.cache / environment.name / "bin" / "python"
            if not python.is_file():
                continue
            if environment is CURRENT:
                raw["facts"] = exact(python)
            if arguments.url:
                races = raw.setdefault("races", {}).setdefault(environment.name, {})
                races.update(race(python, environment, arguments))
    if file is not None:
        file.write_text(json.dumps(raw, indent=1))
    return raw


def race(
    python: Path, environment: Environment, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Race the contenders of an environment, on each framework."""
    found: dict[str, Any] = {}
    for framework, heats in racing.HEATS[environment.name].items():
        found[framework] = []
        for contenders in heats:
            print(f"racing on {framework}: {', '.join(contenders)}", file=sys.stderr)
            measured = racing.race(
                python,
                framework,
                contenders,
                arguments.url,
                arguments.rounds,
                arguments.seconds,
            )
            found[framework].append(measured)
    return found


def exact(python: Path) -> Any:
    done = subprocess.run(
        [python, "-m", "benchmarks.speed.facts"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def show(raw: tables.Raw) -> None:
    for name, measured in raw["environments"].items():
        if "failed" in measured:
            print(f"\nThe environment {name!r} cannot be made:\n{measured['failed']}")
            continue
        if "counted" not in measured:
            continue
        for framework in ("flask", "quart"):
            head, lines = tables.ratios(measured["counted"], framework)
            if lines:
                print(f"\n{framework.title()}, instructions, environment {name!r}\n")
                print(tables.markdown(head, lines))
        for job, error in measured["errors"].items():
            print(f"\n{job} did not run:\n{error}")
        report(measured["counted"])
    if "facts" in raw:
        print("\nModules that an import loads, memory to SQLAlchemy's own\n")
        print(tables.markdown(*tables.facts(raw["facts"])))
        for title, against, what, budget, is_met in tables.fact_outcomes(raw["facts"]):
            mark = "met   " if is_met else "MISSED"
            print(f"{mark} {title}: {what} to {against}, budget {budget}")
    for environment, races in raw.get("races", {}).items():
        for framework, found in races.items():
            where = f"{framework.title()}, over loopback, environment {environment!r}"
            print(f"\n{where}, to the floor\n")
            print(tables.markdown(*tables.races(found)))


def report(counted: dict[str, float]) -> bool:
    """Print how each budget is kept, and return whether none fails."""
    results = tables.outcomes(counted)
    for outcome in results:
        mark = "met   " if outcome.is_met else "MISSED"
        print(f"{mark} {outcome}")
    return not any(outcome.fails for outcome in results)


def check(processes: int) -> int:
    """Count some rows in the environment that runs; 1 if one costs too much."""
    missing = callgrind.missing()
    if missing is not None:
        print(f"SKIPPED: {missing}")
        return 0
    wanted = [
        f"{framework}/{contender}/{name}"
        for name in CHECKED
        for framework in ("flask", "quart")
        for contender in (BARE if name == "request" else FLOOR, DUALCHEMY)
    ]
    counts = callgrind.count(sys.executable, wanted, processes)
    for job, error in counts.errors.items():
        print(f"{job} did not run:\n{error}")
    within = report(counts.counted)
    return 0 if within and not counts.errors else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="for environments")
    parser.add_argument("--check", action="store_true", help="a few rows, here, for CI")
    parser.add_argument("--row", action="append", choices=list(ROWS), help="only this")
    parser.add_argument("--contender", action="append", help="only this")
    parser.add_argument("--processes", type=int, default=2, help="counts at a time")
    parser.add_argument(
        "--json", type=Path, help="a file for the raw numbers, kept if it is there"
    )
    parser.add_argument("--url", help="postgresql://..., to race over loopback as well")
    parser.add_argument("--rounds", type=int, default=20, help="of a race")
    parser.add_argument("--seconds", type=float, default=2, help="of a turn in it")
    parser.add_argument("--count", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--show", type=Path, help="measure nothing, show such a file")
    arguments = parser.parse_args()
    if arguments.check:
        return check(arguments.processes)
    if arguments.show is not None:
        raw = json.loads(arguments.show.read_text())
    else:
        raw = measure(arguments)
    show(raw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
