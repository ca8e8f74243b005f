"""Runs the programs of the documentation, each in a process of its own.

One process has the libraries imported, and forks for each program: most of what a program
would take otherwise is its imports.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Self

_SERVER = """
import ast, asyncio, inspect, os, pathlib, sys, traceback, types
import aiosqlite, flask, quart, sqlalchemy.ext.asyncio

def run(path):
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = str(path)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(path.read_text(), str(path), "exec", flags)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, vars(module)))
    else:
        exec(code, vars(module))

for line in sys.stdin:
    path = pathlib.Path(line.rstrip())
    child = os.fork()
    if not child:
        os.chdir(path.parent)
        output = os.open("output", os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        failed = False
        try:
            run(path)
        except BaseException:
            traceback.print_exc()
            failed = True
        sys.stdout.flush()
        os._exit(failed)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Runner:
    """The process that forks; a context manager."""

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def run(self, code: str, folder: Path) -> tuple[int, str]:
        """Run a program in a folder; it may await at its top level.

        :return: Its exit code, and what it printed.
        """
        program = folder / "program.py"
        program.write_text(code)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{program}\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        return status, (folder / "output").read_text()
