"""The programs in the README and the docs run as pasted."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = re.compile(r"^(import|from) ", re.MULTILINE)  # else it is a fragment


def programs() -> list[tuple[str, str]]:
    found = []
    text = (ROOT / "README.md").read_text()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
        found.append((f"README-{number}", code))
    for path in sorted((ROOT / "docs").glob("*.rst")):
        blocks = re.findall(
            r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", path.read_text()
        )
        for number, block in enumerate(blocks):
            code = textwrap.dedent(block)
            if PROGRAM.search(code):
                found.append((f"{path.stem}-{number}", code))
    return found


PROGRAMS = programs()


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 9


@pytest.mark.parametrize("code", [c for _, c in PROGRAMS], ids=[n for n, _ in PROGRAMS])
def test_program_runs(code: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["README-0", "README-1"])
def test_readme_example_serves(name: str, tmp_path: Path) -> None:
    """A visit to the app that the README shows, with its framework's test client."""
    visit = """
import asyncio, inspect

async def resolve(value):
    return await value if inspect.isawaitable(value) else value

async def main():
    app.config["TESTING"] = True
    if inspect.iscoroutinefunction(create):
        await app.startup()
    client = app.test_client()
    assert (await resolve(client.post("/users/ada"))).status_code == 201
    users = await resolve(client.get("/users"))
    data = await resolve(users.get_data(as_text=True))
    assert '"ada"' in data and '"total": 1' in data.replace('":1', '": 1'), data
    assert (await resolve(client.get("/users/1"))).status_code == 200
    assert (await resolve(client.get("/users/2"))).status_code == 404

asyncio.run(main())
"""
    test_program_runs(dict(PROGRAMS)[name] + visit, tmp_path)


def test_documented_keys_are_the_ones_that_are_read() -> None:
    source = (ROOT / "src" / "dualchemy" / "config.py").read_text()
    documented = (ROOT / "docs" / "configuration.rst").read_text()
    assert set(re.findall(r"SQLALCHEMY_[A-Z_]+", source)) == set(
        re.findall(r"^``(SQLALCHEMY_[A-Z_]+)``", documented, re.MULTILINE)
    )


def test_every_feature_in_the_table_has_a_test() -> None:
    table = (ROOT / "docs" / "flask_sqlalchemy.rst").read_text()
    rows = table.count("    * - ") - 1  # less the header
    named = re.findall(r"``(test_\w+)::(\w+)``", table)
    assert len(named) == rows > 20
    for module, name in named:
        source = (ROOT / "tests" / f"{module}.py").read_text()
        assert re.search(rf"^(async def|def|class) {name}\b", source, re.MULTILINE), (
            name
        )
