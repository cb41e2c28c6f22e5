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


def test_rows_are_in_the_order_of_their_times_though_policies_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    early = step("early/breaker", "breaker", 0.001, step("early", "nix", 0.009))
    late = step("late", "nix", 0.002)
    request = {
        **{"at": "now", "front": "http", "request": "GET narinfo", "status": 404, "bytes": 0},
        **{"summary": "absent: nobody has it", "notes": [], "content": [], "left_out": 0},
        "steps": [step("root", "race", 0.0, early, late)],
    }
    document = {
        **{"store_path": None, "path_hash": "0" * 32},
        **{"dry_run": None, "lookup": request, "nar": None},
    }
    show(document, everything=False, styled=False)
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if " ms " in line]
    assert rows == [["0", "ms"], ["1", "ms"], ["2", "ms"]]
    show(document, everything=True, styled=False)
    assert " 9 ms " in capsys.readouterr().out
