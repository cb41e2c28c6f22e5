from __future__ import annotations

import pytest

from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import Skipped, Unavailable
from tvixstore.policy.in_turn import in_turn
from tvixstore.policy.race import Member


def member(name: str, says: int | Exception | None, asked: list[str]) -> Member[int]:
    async def ask() -> int | None:
        asked.append(name)
        if isinstance(says, Exception):
            raise says
        return says

    return Member(name, ask)


def members(*says: int | Exception | None) -> tuple[list[Member[int]], list[str]]:
    asked: list[str] = []
    return [member("abcdef"[place], each, asked) for place, each in enumerate(says)], asked


@virtual_clock
async def test_the_first_answer_counts_and_nobody_behind_it_is_asked() -> None:
    group, asked = members(None, 0, 1)
    assert await in_turn(group) == (1, 0)
    assert asked == ["a", "b"]


@virtual_clock
async def test_a_failure_is_passed_over() -> None:
    assert await in_turn(members(Unavailable("down"), 7)[0]) == (1, 7)
    assert await in_turn(members(ValueError("a bug"), 7)[0]) == (1, 7)


@virtual_clock
async def test_absent_only_if_all_say_so() -> None:
    assert await in_turn(members(None, None)[0]) is None
    with pytest.raises(Unavailable, match="b: down"):
        await in_turn(members(None, Unavailable("down"))[0])
    with pytest.raises(Skipped) as caught:
        await in_turn(members(None, Skipped("down", ["b"], answered=False))[0])
    assert caught.value.answered
