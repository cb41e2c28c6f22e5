"""What `top` makes of a snapshot, at any size of the terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.cli.test_app import run
from tvixstore.cli import top_view
from tvixstore.cli.top_view import lines, read_snapshot, screen
from tvixstore.errors import InvalidData

PLACE = "grpc+http://127.0.0.1:8000"
HELLO = f"/nix/store/{'0' * 32}-hello-2.12"


def fill(**fields: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "kind": "nar",
        "what": HELLO,
        "source": "mirror",
        "phase": "downloading",
        "reason": None,
        "bytes": 2_500_000,
        "total": 10_000_000,
        "rate": 1_500_000,
        "readers": 2,
        "started": 900.0,
        **fields,
    }


def document(*fills: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "time": 1000.0,
        "fills": list(fills),
        "left_out": 0,
        "totals": {
            "fills": len(fills),
            "rate": 1_500_000,
            "requests": {"http": 3, "grpc": 0},
            "upstreams_up": 2,
            "upstreams_down": 1,
        },
        "down": ["community"],
        **fields,
    }


def shown(told: dict[str, Any], width: int, height: int, trouble: str | None = None) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height, color_system=None)
    console.print(screen(PLACE, read_snapshot(told), trouble, width, height))
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_as_text_it_is_a_line_a_fill() -> None:
    told = document(fill(), fill(kind="blob", what="ab", source="", total=None, readers=1))
    assert lines(PLACE, read_snapshot(told)) == [
        f"{PLACE}  2 fills  1.5 MB/s",
        "requests: 3 http, 0 grpc  upstreams: 2 up, 1 down: community",
        f"downloading  {HELLO}  from mirror  2.5 MB of 10.0 MB  1.5 MB/s  2 readers  for 2m",
        "downloading  ab  2.5 MB  1.5 MB/s  1 reader  for 2m",
    ]


def test_a_narrow_terminal_has_names_and_percents_and_a_wide_one_all() -> None:
    told = document(fill(), fill(kind="blob", what="ab" * 32, total=None))
    narrow = shown(told, 80, 24)
    assert narrow[2].split() == ["WHAT", "FROM", "PHASE", "DONE", "RATE", "READ", "AGE"]
    assert narrow[3].split() == "hello-2.12 mirror downloading 25% 1.5 MB/s 2 2m".split()
    assert narrow[4].startswith("blob abababababab ")
    assert all(len(line) <= 80 for line in narrow)
    wide = shown(told, 200, 50)
    assert wide[3].startswith(f"{'0' * 32}-hello-2.12 ")
    assert "2.5 MB of 10.0 MB  █████░" in wide[3]
    assert "ab" * 32 in wide[4]


@pytest.mark.parametrize("height", [1, 6, 24])
def test_what_does_not_fit_is_counted(height: int) -> None:
    told = document(*[fill() for _ in range(100)], left_out=7)
    told_lines = shown(told, 60, height)
    rows = sum(line.startswith("hello") for line in told_lines)
    assert rows == max(1, height - 5)
    assert told_lines[-1] == f"and {107 - rows} more"


def test_trouble_is_shown_over_what_was_seen_last() -> None:
    told = shown(document(), 80, 24, "the daemon has ended; waiting for it")
    assert told[2] == "the daemon has ended; waiting for it"
    assert told[-1] == "nothing is being fetched"
    console = Console(file=StringIO(), width=80)
    console.print(screen(PLACE, None, None, 80, 24))
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().strip() == PLACE


def test_nothing_in_it_reaches_the_terminal_as_a_command() -> None:
    told = document(fill(what="x\x1b[2J", source="\x07y", reason="a\nb"), down=["\x1bc"])
    text = "\n".join([*shown(told, 200, 50), *lines(PLACE, read_snapshot(told))])
    assert "\x1b" not in text and "\x07" not in text
    assert "x?[2J" in text and "(a?b)" in text


def test_what_another_version_leaves_out_counts_as_nothing() -> None:
    told = {"time": 1.0, "fills": [{"kind": "nar", "what": "x", "phase": "new", "more": 1}]}
    snapshot = read_snapshot(told)
    assert (snapshot.running, snapshot.fills[0].total, snapshot.fills[0].readers) == (0, None, 0)
    assert shown(told, 80, 24)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"time": "x", "fills": []},
        {"time": 1, "fills": 5},
        {"time": 1, "fills": [5]},
        {"time": 1, "fills": [{}]},
        {"time": 1, "fills": [], "totals": 5},
        document(fill(bytes="many")),
        document(fill(rate=[])),
        document(totals={"requests": {"http": None}}),
    ],
)
def test_what_is_no_snapshot_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(InvalidData, match="is no snapshot"):
        read_snapshot(told)


@pytest.mark.parametrize(
    ("seconds", "said"), [(-1, "0s"), (59, "59s"), (61, "1m"), (7200, "2h"), (1e6, "12d")]
)
def test_ages_have_one_unit(seconds: float, said: str) -> None:
    assert top_view.age(seconds) == said


def test_a_daemon_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    done = run("top", "--once", "--from", "grpc+http://127.0.0.1:1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot be reached" in done.stderr


@pytest.mark.parametrize("source", ["http://127.0.0.1:1", "file:///x"])
def test_only_a_daemon_can_be_watched(tmp_path: Path, source: str) -> None:
    done = run("top", "--once", "--from", source, cwd=tmp_path)
    assert done.returncode == 2
    assert "names a daemon" in done.stderr + done.stdout
