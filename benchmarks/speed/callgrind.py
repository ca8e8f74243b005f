"""Run jobs under callgrind, and read what it counted."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .environments import ROOT

TOGGLE = Path(__file__).with_name("toggle.c")
DUMP = re.compile(r"^desc: Trigger: Client Request: (\d+) (.+)$", re.MULTILINE)
TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)


@dataclass
class Counts:
    """Instructions of doing a row's work once, by job, and what could not run."""

    counted: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def missing() -> str | None:
    """Return why nothing can be counted here, or None."""
    for program in ("valgrind", "cc"):
        if shutil.which(program) is None:
            return (
                f"instructions are counted by valgrind's callgrind: no {program!r} here"
            )
    return None


def count(python: Path | str, jobs: Sequence[str], processes: int) -> Counts:
    """Count the jobs, so many at a time."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = folder / "toggle.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O2", "-o", library, TOGGLE], check=True
        )
        shares = [jobs[n::processes] for n in range(processes)]
        with ThreadPoolExecutor(processes) as pool:
            runs = [
                pool.submit(_run, python, folder, library, share)
                for share in shares
                if share
            ]
        for run in runs:
            run.result()
        found: dict[str, dict[int, int]] = defaultdict(dict)
        for path in folder.glob("out.*"):
            text = path.read_text()
            dump, totals = DUMP.search(text), TOTALS.search(text)
            if dump and totals:
                found[dump[2]][int(dump[1])] = int(totals[1])
        for path in folder.glob("error.*"):
            error = json.loads(path.read_text())
            counts.errors[error["job"]] = error["error"]
    for job, measured in found.items():
        if len(measured) == 2:
            times = min(measured)
            counts.counted[job] = (measured[2 * times] - measured[times]) / times
    for job in jobs:
        if job not in counts.counted:
            counts.errors.setdefault(job, "ended before it was counted")
    return counts


def _run(python: Path | str, folder: Path, library: Path, jobs: Sequence[str]) -> None:
    command = [
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        "--instr-atstart=no",
        "--collect-atstart=no",
        f"--callgrind-out-file={folder}/out.%p",
        str(python),
        "-m",
        "benchmarks.speed.counting",
        str(folder),
        str(library),
        *jobs,
    ]
    subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT / "src")},
        check=True,
        timeout=1800,
    )
