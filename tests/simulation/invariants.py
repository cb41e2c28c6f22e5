"""What has to hold in every world, whatever goes wrong in it."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from tests.simulation.world import FAILURES, MEMBER, OPEN, Guarded, World
from tests.support.virtual_clock import now
from tvixstore.blob import BlobService
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData, Unavailable
from tvixstore.policy.chaos import STALL

if TYPE_CHECKING:
    from tests.simulation.parts import Parts

# Times are compared with so much to spare.
EPSILON = 1e-6


async def read_one(world: World, call: str, digest: Digest) -> None:
    """One reader's call, and whether its answer can be right."""
    begun = now()
    answer: bool | bytes | Exception | None
    try:
        answer = await _ask(world.root, call, digest)
    except (Unavailable, CorruptData) as error:
        if any(member.healthy for member in world.holders(digest)):
            world.wrong(f"not delivered, though a healthy member has it: {call}: {error}")
        answer = error
    _in_time(world, call, now() - begun)
    truth = world.blobs[digest]
    if answer is None:
        if world.holders(digest):
            world.wrong(f"a false absent: {call} {digest}")
    elif isinstance(answer, bytes) and answer != (truth[1:] if call == "part" else truth):
        world.wrong(f"wrong bytes: {call} {digest}")
    elif not isinstance(answer, Exception) and not world.holders(digest):
        world.wrong(f"there is nothing of the kind: {call} {digest}")


async def _ask(root: BlobService, call: str, digest: Digest) -> bool | bytes | None:
    if call == "has":
        return await root.has(digest) or None
    stream = await root.open_read(digest, 1 if call == "part" else 0)
    return None if stream is None else await stream.read_all()


def _in_time(world: World, call: str, seconds: float) -> None:
    most = len(world.members) * MEMBER
    if call != "has":
        # Two questions a member, and a stream that stalls is given up when the network says so.
        most = len(world.members) * (2 * MEMBER + STALL)
    if seconds > most + EPSILON:
        world.wrong(f"{call} took {seconds:.3f} s, and has {most:.3f}")


async def afterwards(world: World, parts: Parts) -> None:
    """What has to hold when everybody has left."""
    for member in world.members:
        if member.watched.open_streams:
            world.wrong(f"{member.watched.name}: {member.watched.open_streams} streams left open")
        _breaks(world, member)
    _adds_up(world)
    _hedges(world)
    _leaks(world)
    await _flies_alone(world, parts)


def _breaks(world: World, member: Guarded) -> None:
    """Its breaker opened when it should, and kept everybody out while it was open."""
    name = member.watched.name
    in_a_row, longest = 0, 0
    for _, well in member.watched.ended:
        in_a_row = 0 if well else in_a_row + 1
        longest = max(longest, in_a_row)
    if longest >= FAILURES and not member.changes:
        world.wrong(f"{name}: {longest} failures in a row did not open its breaker")
    for number, (is_open, since) in enumerate(member.changes):
        if not is_open:
            continue
        # An answer to a question from before may close it at any time.
        closed = member.changes[number + 1][1] if number + 1 < len(member.changes) else 1e9
        until = min(closed, since + OPEN) - EPSILON
        early = [at for at in member.watched.began if since + EPSILON < at < until]
        if early:
            world.wrong(f"{name}: asked at {early[0]:.3f}, though open since {since:.3f}")
    if any(one[0] == other[0] for one, other in pairwise(member.changes)):
        world.wrong(f"{name}: its breaker changed to what it was")


def _adds_up(world: World) -> None:
    """Metrics have every call that a member met."""
    text = generate_latest(world.metrics.registry).decode()
    for member in world.members:
        labels = rf'call="(\w+)",node="{member.watched.name}"'
        counted = re.findall(rf"^tvixstore_node_calls_total{{{labels}.*}} ([\d.]+)$", text, re.M)
        total = sum(float(count) for call, count in counted if call != "stream")
        met = member.chaos.met.total()
        if total != met:
            world.wrong(f"{member.watched.name}: {met} calls came, and {total:.0f} were counted")


def _hedges(world: World) -> None:
    hedging = world.hedging
    if hedging is None or hedging.at_once:
        return
    most = hedging.races * hedging.budget.share + hedging.budget.most
    if hedging.hedges > most + EPSILON:
        world.wrong(f"{hedging.hedges} of {hedging.races} races hedged, at most {most:.1f} may be")


def _leaks(world: World) -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        world.wrong(f"tasks left: {sorted(task.get_name() for task in left)}")


async def _flies_alone(world: World, parts: Parts) -> None:
    """Whoever wants the same at the same time shares one piece of work."""
    flights = parts.flights()
    running, most = 0, 0

    async def work() -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1.0)
        running -= 1
        return world.seed

    answers = await asyncio.gather(*[flights.run("key", work) for _ in range(5)])
    if most != 1 or answers != [world.seed] * 5:
        world.wrong(f"{most} pieces of the same work ran at once")
    await flights.aclose()
