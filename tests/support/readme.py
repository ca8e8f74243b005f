"""Runs the README's examples. As a program, on the Dualchemy that is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"

VISIT = """
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
"""A visit to the app that an example makes, with its framework's test client."""

FROM_A_PACKAGE = """
import dualchemy
assert "site-packages" in dualchemy.__file__, dualchemy.__file__
"""


def examples() -> list[str]:
    """Return the README's programs."""
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def main() -> None:
    for code in examples():
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder, "program.py")
            program.write_text(code + VISIT + FROM_A_PACKAGE)
            command = [sys.executable, "-I", "-W", "error", str(program)]
            subprocess.run(command, check=True, cwd=folder)


if __name__ == "__main__":
    main()
