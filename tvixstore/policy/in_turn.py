"""Asking several members one after the other, until one has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tvixstore.policy.race import Member
from tvixstore.policy.verdict import Verdict

Result = TypeVar("Result")


async def in_turn(members: Sequence[Member[Result]]) -> tuple[int, Result] | None:
    """The first right answer, with its member's index, or `None` if all of them said absent.

    Raises as `Verdict` does if nobody had it and some failed.
    """
    verdict = Verdict()
    for index, member in enumerate(members):
        try:
            answer = await member.ask()
        except Exception as error:
            verdict.failed(member.name, error)
            continue
        if answer is not None:
            return index, answer
        verdict.absent()
    verdict.conclude()
    return None
