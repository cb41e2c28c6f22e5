"""`share/` is what the command line makes now, and says what `--help` does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from manual.__main__ import render
from manual.commands import Command, read_commands
from tests.support.parts import needs
from tvixstore.cli.examples import EXAMPLES

ROOT = Path(__file__).parents[2]
SHARE = ROOT / "share"
COMMANDS = list(read_commands().all())
PAGES = sorted(SHARE.glob("man/man1/*.1"))
COMPOSE = SHARE / "man/man5/tvix-store-compose.5"


def test_it_is_what_the_command_line_makes_now() -> None:
    there = {
        str(file.relative_to(SHARE)): file.read_text("utf-8")
        for file in SHARE.rglob("*")
        if file.is_file()
    }
    made = render()
    stale = [name for name in sorted({*there, *made}) if there.get(name) != made.get(name)]
    assert not stale, "`make manual` makes share again"


def test_every_option_of_a_help_is_known() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tvixstore.cli", "copy", "--help"],
        env={"PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (copy,) = [each for each in COMMANDS if each.words == ("tvix-store", "copy")]
    known = {name for option in copy.options for name in option.names if name.startswith("--")}
    # The help only: the examples below it have what options take, too.
    assert known == set(re.findall(r"(?<!\S)--[a-z-]+", done.stdout.split("Examples:")[0]))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: " ".join(each.words))
def test_a_command_says_what_it_does_and_what_each_of_its_options_is(command: Command) -> None:
    assert command.summary
    assert [option.names for option in command.options if not option.help] == []
    assert [each.value.metavar for each in command.arguments if not each.help] == []


def test_an_example_is_of_a_command_and_has_options_that_are_there() -> None:
    commands = {" ".join(each.words[1:]): each for each in COMMANDS}
    for words, rows in EXAMPLES.items():
        known = {name for option in commands[words].options for name in option.names}
        for _, example in rows:
            _, found, rest = example.partition(f"tvix-store {words}")
            assert found, example
            for option in re.findall(r"(?<!\S)--?[a-zA-Z][\w-]*", rest):
                letters = {f"-{letter}" for letter in option[1:]}
                assert option in known or letters <= known, f"{example}: {option}"


def test_mandoc_finds_nothing_in_the_pages() -> None:
    needs("mandoc")
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "style", *map(str, PAGES), str(COMPOSE)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    # It looks for pages that are referred to in the system's folders, too.
    lines = [line for line in done.stdout.splitlines() if "referenced manual not found" not in line]
    assert lines == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_the_sections_that_people_look_for(page: Path) -> None:
    text = page.read_text("utf-8")
    headings = re.findall(r"^\.SH (.*)$", text, re.M)
    assert headings[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert {"OPTIONS", "EXIT STATUS", "SEE ALSO"} <= set(headings)
    # What it refers to is there.
    check_references(text)


def check_references(text: str) -> None:
    references = re.findall(r"\\fB(tvix[a-z\\-]+)\\fR\(([15])\)", text)
    assert references
    for name, section in references:
        page = f"{name.replace(chr(92), '')}.{section}"
        assert (SHARE / f"man/man{section}" / page).exists(), page


def test_the_page_of_compose_files_has_what_they_are_made_of() -> None:
    text = COMPOSE.read_text("utf-8")
    headings = re.findall(r"^\.SH (.*)$", text, re.M)
    assert headings[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    for heading in ("[daemon]", "[store]", "[[substituters]]", "THE LONG FORM", "FILES"):
        assert heading in headings
    check_references(text)
