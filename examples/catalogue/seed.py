"""Fills an empty catalogue with the standard library of the running Python."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from .models import Entry, Seeded, db

CHUNK = 500
# To import these opens windows or browsers, prints, or warns that they are leaving.
SKIPPED = {
    "antigravity",
    "idlelib",
    "lib2to3",
    "nt",
    "test",
    "this",
    "turtle",
    "turtledemo",
}
SUBMODULES = (
    *(
        "asyncio",
        "collections.abc",
        "concurrent.futures",
        "email.message",
        "http.client",
    ),
    *("http.server", "importlib.metadata", "importlib.resources", "json.decoder"),
    *("logging.handlers", "os.path", "unittest.mock", "urllib.parse", "urllib.request"),
    *("wsgiref.simple_server", "xml.dom.minidom", "xml.etree.ElementTree"),
)


class Progress:
    """A line on the terminal that shows how far a step has come."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._shown = -1

    def advance(self, count: int = 1) -> None:
        self._done += count
        percent = 100 * self._done // max(self._total, 1)
        if percent == self._shown:
            return
        self._shown = percent
        line = f"{self._label:24} {'#' * (percent // 4):25} {percent:3} %"
        if sys.stderr.isatty():
            end = "\n" if self._done >= self._total else ""
            print(f"\r{line}", end=end, file=sys.stderr, flush=True)
        elif percent % 25 == 0:
            print(line, file=sys.stderr, flush=True)


def fill(modules: Iterable[str] | None = None) -> int:
    """Create the tables, and the entries if there are none.

    Needs an app context, of either framework. Any number of processes may call this at
    once: one of them fills the catalogue, the others wait for it.

    :param modules: The modules to list; the whole standard library by default.
    :return: The number of entries that were added.
    """
    create_tables()
    with db.sync.sessionmaker() as session:
        if session.scalar(select(Seeded.id)) is not None:
            return 0
    names = sorted(modules or module_names())
    rows: dict[str, dict[str, Any]] = {}
    reading = Progress("Reading the library", len(names))
    for name in names:
        for row in entries_of(name):
            rows.setdefault(row["name"], row)
        reading.advance()
    try:
        store(list(rows.values()))
    except IntegrityError:  # another process was faster
        return 0
    return len(rows)


def create_tables() -> None:
    """Create the tables, also while another process does the same."""
    for _ in db.metadata.tables:
        try:
            return db.sync.create_all()
        except DBAPIError:  # the other one was faster with a table; go on from there
            continue
    return db.sync.create_all()


def store(rows: list[dict[str, Any]]) -> None:
    """Insert the rows in one transaction."""
    storing = Progress("Storing the entries", len(rows))
    with db.sync.sessionmaker.begin() as session:
        session.execute(insert(Seeded).values(id=1))
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            session.execute(insert(Entry), chunk)
            storing.advance(len(chunk))


def module_names() -> set[str]:
    """The public modules of the standard library."""
    public = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    return (public - SKIPPED) | set(SUBMODULES)


def entries_of(name: str) -> Iterator[dict[str, Any]]:
    """Yield the entries of a module; none if this Python cannot import it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except Exception:  # modules of other platforms fail in many ways
        return
    yield row("module", name, name, module)
    for member_name, member in public_members(module):
        full_name = f"{name}.{member_name}"
        if inspect.isclass(member):
            yield row("class", full_name, name, member)
            for method_name, method in vars(member).items():
                if not method_name.startswith("_") and inspect.isroutine(method):
                    yield row("method", f"{full_name}.{method_name}", name, method)
        elif inspect.isroutine(member):
            yield row("function", full_name, name, member)


def public_members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield what a module offers: what it exports, or else what it defines."""
    exported = getattr(module, "__all__", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in exported if exported is not None else vars(module).copy():
            member = getattr(module, name, None)
            if exported is None and (
                name.startswith("_")
                or getattr(member, "__module__", None) != module.__name__
            ):
                continue
            yield name, member


def row(kind: str, name: str, module: str, described: Any) -> dict[str, Any]:
    doc = (inspect.getdoc(described) or "").replace("\x00", "")
    summary = " ".join(doc.partition("\n\n")[0].split())
    return {
        "kind": kind,
        "name": name[:190],
        "module": module,
        "summary": summary[:300],
        "doc": doc[:20_000],
    }
