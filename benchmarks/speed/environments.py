"""Which environments are compared, and which releases of the peers are in each?

This is the only place that names a release. Contenders are compared with those of their
own environment alone, for another SQLAlchemy is another floor.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".tox" / "speed-environments"


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    name: str
    python: tuple[str, ...]
    """Versions of Python that will do, the best first."""

    requirements: tuple[str, ...]

    def make(self, cache: Path) -> Path:
        """Make the environment in a folder, unless it is there, and return its Python.

        :raises SetupError: if it cannot be made.
        """
        folder = cache / self.name
        python = folder / "bin" / "python"
        wanted = "\n".join(self.requirements)
        mark = folder / "requirements.txt"
        if mark.is_file() and mark.read_text() == wanted:
            return python
        shutil.rmtree(folder, ignore_errors=True)
        uv = shutil.which("uv")
        if uv is not None:
            _run(uv, "venv", "--quiet", "--python", self._find_python(), folder)
            _run(uv, "pip", "install", "--quiet", "-p", python, *self.requirements)
        else:
            _run(self._find_python(), "-m", "venv", folder)
            _run(python, "-m", "pip", "install", "--quiet", *self.requirements)
        mark.write_text(wanted)
        return python

    def _find_python(self) -> str:
        running = "{}.{}".format(*sys.version_info)
        if running in self.python:
            return sys.executable
        for version in self.python:
            found = shutil.which(f"python{version}")
            if found is not None:
                return found
        return self.python[0]  # uv knows where else to look


class SetupError(Exception):
    """An environment cannot be made; the message is what the installer said."""


def _run(*command: str | Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise SetupError(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise SetupError(error.stderr.strip() or error.stdout) from error


BASE = (
    "aiosqlite==0.22.1",
    "asyncpg==0.32.0",
    "blinker>=1.5",
    "greenlet>=3",
    "hypercorn==0.18.0",
    "psycopg[binary,pool]==3.3.9",
    "waitress==3.0.2",
)

CURRENT = Environment(
    "current",
    ("3.13", "3.14"),
    (
        *BASE,
        "flask==3.1.3",
        "quart==0.23.1",
        "sqlalchemy[asyncio]==2.1.9",
        "flask-sqlalchemy==3.1.1",
        "flask-sqlalchemy-lite==0.2.1",
        "advanced-alchemy==1.12.0",
        "alchemical==1.0.3",
    ),
)

# Quart-SQLAlchemy 3.0.4 needs Quart below 0.20, Werkzeug below 3.1 and pydantic 1.
QUART_SQLALCHEMY = Environment(
    "quart-sqlalchemy",
    ("3.11", "3.12"),
    (*BASE, "quart-sqlalchemy==3.0.4", "sqlalchemy[asyncio]==2.0.58"),
)
