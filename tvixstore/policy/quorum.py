"""Asking all of several members to do something, of which enough have to succeed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tvixstore.errors import (
    InvalidData,
    ReadOnly,
    StorageFull,
    StoreError,
    Unavailable,
    Unsupported,
)
from tvixstore.policy.race import Member, dismiss
from tvixstore.policy.verdict import Verdict

Result = TypeVar("Result")

# Seconds that the others get, once enough have succeeded.
PATIENCE = 5.0

# What says more of the request, or of the whole group, than of a member.
_COMMON = (InvalidData, ReadOnly, StorageFull, Unsupported)


def parse_quorum(value: object, members: int) -> int:
    """How many of `members` a quorum of `"all"`, `"majority"` or a number is; a `ValueError` if
    there are not so many."""
    if value == "all":
        return members
    if value == "majority":
        return members // 2 + 1
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= members:
        return value
    raise ValueError(f'write "all", "majority" or a number from 1 to {members}')


@dataclass(frozen=True, slots=True)
class Outcomes(Generic[Result]):
    """What enough members did, and what the others failed with; by index."""

    done: Mapping[int, Result]
    failed: Mapping[int, Exception]


async def at_all(
    members: Mapping[int, Member[Result]],
    quorum: int,
    patience: float = PATIENCE,
    dispose: Callable[[Result], Awaitable[None]] | None = None,
) -> Outcomes[Result]:
    """Has all `members` do it, at the same time; at least `quorum` of them did when this returns.

    Raises once so many have failed that they cannot: what all of them say, or `Unavailable` with
    every reason. What others did by then stays done. When enough have succeeded, the rest gets
    `patience` seconds, so that one that hangs does not hold up those that don't. What members
    brought that is not returned, be it that the caller has left, goes to `dispose`.
    """
    running = {
        asyncio.create_task(member.ask(), name=f"ask {member.name}"): index
        for index, member in members.items()
    }
    done: dict[int, Result] = {}
    failed: dict[int, Exception] = {}
    kept: list[asyncio.Task[Result | None]] = []
    try:
        await _wait(running, done, failed, quorum, patience)
        if len(done) >= quorum:
            kept = [task for task, index in running.items() if index in done]
    finally:
        try:
            await dismiss([task for task in running if task not in kept], dispose, None)
        except asyncio.CancelledError:
            await dismiss(kept, dispose, None)
            raise
    for index, member in members.items():
        if index not in done and index not in failed:
            failed[index] = Unavailable(f"{member.name} was too slow for the others")
    if len(done) < quorum:
        raise failure_of([(members[index].name, error) for index, error in sorted(failed.items())])
    return Outcomes(done, failed)


async def _wait(
    running: Mapping[asyncio.Task[Result | None], int],
    done: dict[int, Result],
    failed: dict[int, Exception],
    quorum: int,
    patience: float,
) -> None:
    loop = asyncio.get_running_loop()
    pending = set(running)
    end: float | None = None
    while pending and len(running) - len(failed) >= quorum:
        if len(done) >= quorum and end is None:
            end = loop.time() + patience
        left = None if end is None else end - loop.time()
        if left is not None and left <= 0:
            return
        over, pending = await asyncio.wait(
            pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
        )
        for task in over:
            index = running[task]
            if task.cancelled():
                failed[index] = Unavailable("cancelled")
            elif (error := task.exception()) is None:
                done[index] = task.result()  # type: ignore[assignment]
            elif isinstance(error, Exception):
                failed[index] = error
            else:
                raise error


def failure_of(failures: Sequence[tuple[str, Exception]]) -> StoreError:
    """What a group says that did not get its quorum."""
    first = failures[0][1]
    if isinstance(first, _COMMON) and all(isinstance(e, type(first)) for _, e in failures):
        return first
    verdict = Verdict()
    for name, error in failures:
        verdict.failed(name, error)
    try:
        verdict.conclude()
    except StoreError as failure:
        return failure
    raise AssertionError("a group without failures has its quorum")
