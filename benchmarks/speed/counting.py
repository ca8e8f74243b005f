"""Count instructions, under callgrind, in an environment of the contenders.

``python -m benchmarks.speed.counting FOLDER JOB...`` is started by :mod:`.callgrind`. A job
is ``framework/contender/row``. Each runs in a process of its own, forked from one that
has imported SQLAlchemy and the frameworks: under valgrind that takes longer than all else.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import aiosqlite  # noqa: F401 - imported before the fork
import flask  # noqa: F401
import quart  # noqa: F401
import sqlalchemy.dialects.sqlite.aiosqlite
import sqlalchemy.ext.asyncio  # noqa: F401

from .rows import ROWS
from .work import OnFlask, OnQuart, scratch_database, scratch_folder

WARM_UP = 4
"""How many times the work is done before it is counted: 2 to 4 times as often as within
the shorter of the two counts.
"""

TIME_LIMIT = 300
"""After how many seconds a job is given up."""


def count(requests: ctypes.CDLL, job: str, url: str) -> None:
    """Have callgrind write down the instructions of doing a row's work n and 2n times."""
    framework, contender, name = job.split("/")
    row = ROWS[name]
    run = row.prepare({"flask": OnFlask, "quart": OnQuart}[framework](contender, url))
    for _ in range(WARM_UP):
        run(row.times)
    gc.collect()
    gc.freeze()
    gc.disable()
    requests.start()
    run(row.times)  # callgrind translates, and the interpreter has specialised
    for times in (row.times, 2 * row.times):
        requests.begin()
        run(times)
        requests.end(f"{times} {job}".encode())


def main(arguments: Sequence[str]) -> None:
    folder, library, *jobs = arguments
    requests = ctypes.CDLL(library)
    assert requests.is_running(), "start this under valgrind"
    with scratch_folder() as databases:
        filled = scratch_database(databases)
        for number, job in enumerate(jobs):
            # A file for each, for some add rows.
            url = filled.replace("items.db", f"items{number}.db")
            shutil.copy(
                filled.removeprefix("sqlite:///"), url.removeprefix("sqlite:///")
            )
            child = os.fork()
            if child == 0:
                _count_in_child(requests, job, url, folder)
            os.waitpid(child, 0)


def _count_in_child(requests: ctypes.CDLL, job: str, url: str, folder: str) -> NoReturn:
    signal.alarm(TIME_LIMIT)
    try:
        count(requests, job, url)
    except BaseException:
        error = json.dumps({"job": job, "error": traceback.format_exc()})
        Path(folder, f"error.{os.getpid()}").write_text(error)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
