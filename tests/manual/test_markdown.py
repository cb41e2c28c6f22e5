"""Pages of `docs/` as man pages: what of Markdown is understood, and that nothing gets lost."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from manual import compose_page, markdown
from manual.roff import escaped
from tests.support.parts import needs

PAGE = compose_page.render()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("One\nparagraph.\n\nAnother.", ["One paragraph.", ".PP", "Another."]),
        ("First. `then` this.", ["First.\n\\fBthen\\fR this."]),
        (
            "See [there](that.md#part) and **mind** *it*.",
            ["See there and \\fBmind\\fR \\fBit\\fR."],
        ),
        ("`a * b` and `c * d`", ["\\fBa * b\\fR and \\fBc * d\\fR"]),
        ("- one\n- two\n  lines", [".IP \\(bu 4", "one", ".IP \\(bu 4", "two lines"]),
        ("1. one\n2. two", [".IP 1. 4", "one", ".IP 2. 4", "two"]),
        (
            "```toml\n.a = 1\n\n'b' = 2\n```",
            [".RS 4", ".nf", "\\&.a = 1", "", "\\(aqb\\(aq = 2", ".fi", ".RE"],
        ),
        ("    as\n      it is", [".RS 4", ".nf", "as", "  it is", ".fi", ".RE"]),
        ("### A-head\n\nText.", [".SS A\\-head", "Text."]),
        ("<!-- mark -->\n\nText.", ["Text."]),
        (
            "| key | type | what |\n|---|---|---|\n| `a` | `b` | does it |\n| `c` | | |",
            [".TP", "\\fBa\\fR", "Type: \\fBb\\fR.\nDoes it.", ".TP", "\\fBc\\fR", "\\&"],
        ),
        ("| of | |\n|---|---|\n| 0 | done |", [".TP", "0", "done."]),
    ],
)
def test_it_becomes(text: str, lines: list[str]) -> None:
    rendered = markdown.render(text)
    assert [line for line in rendered if line != ".PP" or ".PP" in lines] == lines


def test_sections_are_told_apart() -> None:
    text = "# Title\n\nbefore\n\n## One\n\nof one\n\n### Below\n\n## [two]\n\nof two\n"
    assert markdown.sections(text) == {
        "": "# Title\n\nbefore\n\n",
        "One": "\nof one\n\n### Below\n\n",
        "[two]": "\nof two\n",
    }


def test_every_key_and_type_has_its_place_in_the_page() -> None:
    documents = [
        (compose_page.DOCS / name).read_text("utf-8")
        for name in ("configuration.md", "composition.md")
    ]
    text = documents[0].partition("## Keys that later versions bring")[0] + documents[1]
    keys = re.findall(r"^\| `([a-z_-]+)` \|", text, re.M)
    assert len(keys) > 60
    tags = re.findall(r"^\.TP\n\\fB(.+)\\fR$", PAGE, re.M)
    assert [key for key in keys if escaped(key) not in tags] == []


def test_nothing_of_markdown_is_left() -> None:
    body = "\n".join(line for line in PAGE.splitlines() if not line.startswith((".", "\\&.")))
    assert re.findall(r"`|\*\*|\]\(|^\||^#|<!--", body, re.M) == []


def test_groff_finds_nothing_in_the_pages(tmp_path: Path) -> None:
    needs("groff")
    page = tmp_path / "page.5"
    page.write_text(PAGE, "utf-8")
    done = subprocess.run(
        ["groff", "-ww", "-Kutf8", "-Tutf8", "-man", "-z", str(page)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
