"""How an explanation is laid out for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvixstore.cli.explained import show

if TYPE_CHECKING:
    import pytest


def step(node: str, kind: str, at: float, *below: dict[str, Any]) -> dict[str, Any]:
    return {
        **{"node": node, "kind": kind, "call": "describe", "at": at, "seconds": 1.0},
        **{"outcome": "absent", "reason": None, "bytes": 0, "notes": [], "steps": list(below)},
    }


def lookup(*steps: dict[str, Any]) -> dict[str, Any]:
    request = {
        **{"at": "now", "front": "http", "request": "GET narinfo", "status": 404, "bytes": 0},
        **{"summary": "absent: nobody has it", "notes": [], "content": [], "left_out": 0},
        "steps": steps,
    }
    return {
        **{"store_path": None, "path_hash": "0" * 32},
        **{"dry_run": None, "lookup": request, "nar": None},
    }


def test_rows_are_in_the_order_of_their_times_though_policies_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    early = step("early/breaker", "breaker", 0.001, step("early", "nix", 0.009))
    late = step("late", "nix", 0.002)
    document = lookup(step("root", "race", 0.0, early, late))
    show(document, everything=False, styled=False)
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if " ms " in line]
    assert rows == [["0", "ms"], ["1", "ms"], ["2", "ms"]]
    show(document, everything=True, styled=False)
    assert " 9 ms " in capsys.readouterr().out


def test_what_was_chosen_by_a_name_of_its_own_is_shown_by_that_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drill = step("drill", "chaos", 0.0, step("again", "retry", 0.0, step("far", "nix", 0.0)))
    plain = step(
        "near/breaker", "breaker", 0.0, step("near/retry", "retry", 0.0, step("near", "nix", 0.0))
    )
    show(lookup(step("root", "race", 0.0, drill, plain)), everything=False, styled=False)
    out = capsys.readouterr().out
    assert "├─ drill › far (nix)" in out
    assert "└─ near (nix)" in out
