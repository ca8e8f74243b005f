"""What the README and the docs show runs, and says what they say it does.

A block of Python is a program if it imports what it uses. Else it is a fragment, and runs
after the page's last ``.. testsetup::`` above it, which readers do not see, in a coroutine
if it awaits, and before the ``.. testcleanup::`` below it, if there is one. A ``text``
block of the class ``raised`` is the error that the Python block above it ends with.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.readme import VISIT, examples
from support.snippets import Runner

import dualchemy
from dualchemy import DualchemyError

ROOT = Path(__file__).parent.parent
IMPORT = re.compile(r"^(import|from) ", re.MULTILINE)
BLOCK = re.compile(
    r"""
    ^(?P<indent>\ *)\.\.\ (?P<kind>testsetup|testcleanup|code-block)::\ *(?P<language>\w*)\n
    (?:(?P=indent)\ {4}:class:\ (?P<class>\w+)\n)?
    \n
    (?P<body>(?:(?P=indent)\ {4}.*\n|\n)+)
    """,
    re.MULTILINE | re.VERBOSE,
)


@dataclass
class Snippet:
    """A block of Python, with what it needs around it."""

    name: str
    code: str
    setup: str = ""
    cleanup: str = ""
    error: str = ""
    """The error that it ends with, as a traceback shows it; white space may differ."""

    def check(self, runner: Runner, folder: Path) -> None:
        """Run it, and see that it ends as the reader is told."""
        code = f"{self.setup}\n{self.code}\n{self.cleanup}"
        status, output = runner.run(code, folder)
        assert status == bool(self.error), output
        assert " ".join(self.error.split()) in " ".join(output.split()), output


def snippets_of(page: Path) -> list[Snippet]:
    found: list[Snippet] = []
    setup = ""
    for block in BLOCK.finditer(page.read_text()):
        body = textwrap.dedent(block["body"])
        if block["kind"] == "testsetup":
            setup = body
        elif block["kind"] == "testcleanup":
            found[-1].cleanup = body
        elif block["class"] == "raised":
            found[-1].error = body
        elif block["language"] == "python":
            name = f"{page.stem}-{len(found)}"
            before = "" if IMPORT.search(body) else setup
            found.append(Snippet(name, body, before))
    return found


README = [Snippet(f"README-{number}", code) for number, code in enumerate(examples())]
SNIPPETS = README + [
    snippet
    for page in sorted((ROOT / "docs").glob("*.rst"))
    for snippet in snippets_of(page)
]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as runner:
        yield runner


def test_there_are_snippets_with_and_without_errors() -> None:
    assert len(README) == 2
    assert len([each for each in SNIPPETS if each.error]) > 20
    assert len([each for each in SNIPPETS if not each.error]) > 40


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[each.name for each in SNIPPETS])
def test_snippet_runs(snippet: Snippet, runner: Runner, tmp_path: Path) -> None:
    snippet.check(runner, tmp_path)


@pytest.mark.parametrize("snippet", README, ids=[each.name for each in README])
def test_readme_example_serves(
    snippet: Snippet, runner: Runner, tmp_path: Path
) -> None:
    Snippet(snippet.name, snippet.code, cleanup=VISIT).check(runner, tmp_path)


def test_documented_keys_are_the_ones_that_are_read() -> None:
    source = (ROOT / "src" / "dualchemy" / "config.py").read_text()
    documented = (ROOT / "docs" / "configuration.rst").read_text()
    assert set(re.findall(r"SQLALCHEMY_[A-Z_]+", source)) == set(
        re.findall(r"^\.\. confval:: (SQLALCHEMY_[A-Z_]+)$", documented, re.MULTILINE)
    )


@pytest.mark.parametrize("name", dualchemy.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    reference = (ROOT / "docs" / "api.rst").read_text()
    assert re.search(rf"^\.\. auto\w+:: (\w+\.)*{name}\b", reference, re.MULTILINE)


@pytest.mark.parametrize(
    "name", [each.__name__ for each in DualchemyError.__subclasses__()]
)
def test_every_exception_is_shown(name: str) -> None:
    shown = [each.error for each in SNIPPETS if each.name.startswith("errors-")]
    assert any(f".{name}: " in error for error in shown)


def test_every_feature_in_a_table_has_a_test() -> None:
    guide = (ROOT / "docs" / "flask_sqlalchemy.rst").read_text()
    readme = (ROOT / "README.md").read_text()
    of_guide = re.findall(r"``(test_\w+)::(\w+)``", guide)
    of_readme = re.findall(r"`(test_\w+)::(\w+)` \|$", readme, re.MULTILINE)
    assert len(of_guide) == guide.count("    * - ") - 1 > 20  # less the header
    assert len(of_readme) == len(re.findall(r"^\| \w", readme, re.MULTILINE)) > 10
    for module, name in of_guide + of_readme:
        source = (ROOT / "tests" / f"{module}.py").read_text()
        assert re.search(rf"^(async def|def|class) {name}\b", source, re.MULTILINE), (
            name
        )
