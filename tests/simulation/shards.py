"""A world of shards: members come and go, and take or leave no more than their share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from tests.directory.samples import directory
from tests.pathinfo.scripted import info_of
from tests.simulation import blobs, infos, trees
from tvixstore.castore import Digest
from tvixstore.errors import Unavailable
from tvixstore.nix import StorePath
from tvixstore.policy.chaos import Chaos

if TYPE_CHECKING:
    from tests.simulation.compositions import Kit

KEYS = 20


@dataclass(frozen=True)
class _Things:
    """What one service keeps: number n, under which key, and how it is put, had and held."""

    kit: Kit
    make: Callable[[int], tuple[bytes, Any]]
    get: Callable[[Any, bytes], Awaitable[Any]]
    held: Callable[[Any], Any]


def _blob(number: int) -> tuple[bytes, bytes]:
    data = f"blob {number}".encode() * 200
    return Digest.of(data).raw, data


def _directory(number: int) -> tuple[bytes, Any]:
    made = directory(file=f"text {number}")
    return made.digest.raw, made


def _info(number: int) -> tuple[bytes, Any]:
    path = StorePath(str(number).encode().ljust(20, b"."), f"path-{number}")
    return path.hash, info_of(str(number), path)


SERVICES = {
    "blobs": _Things(
        blobs.KIT,
        _blob,
        lambda service, key: service.read(Digest(key)),
        lambda store: {digest.raw for digest in store.blobs},
    ),
    "directories": _Things(
        trees.KIT,
        _directory,
        lambda service, key: service.get(Digest(key)),
        lambda store: {digest.raw for digest in store.directories},
    ),
    "path infos": _Things(
        infos.KIT, _info, lambda service, key: service.get(key), lambda store: set(store.infos)
    ),
}


async def simulate_shards(seed: int, placement: Callable[..., Any] | None = None) -> list[str]:
    """What the world of that seed broke of the invariants; the services take turns."""
    name, things = list(SERVICES.items())[seed % len(SERVICES)]
    world = _World(f"shards of {name}, seed {seed}", things, Random(f"shards {seed}"))
    world.placement = placement or things.kit.placement
    await world.run()
    return world.broken


class _World:
    def __init__(self, name: str, things: _Things, random: Random) -> None:
        self.broken: list[str] = []
        self.placement: Callable[..., Any] = things.kit.placement
        self._name = name
        self._things = things
        self._random = random
        self._stores: dict[str, Any] = {}
        self._chaos: dict[str, Chaos] = {}
        self._weights: dict[str, float] = {}

    async def run(self) -> None:
        random, things = self._random, self._things
        names = [f"shard-{number}" for number in range(random.randrange(2, 6))]
        for name in names:
            self._stores[name] = things.kit.store(Random(0))
            self._stores[name].room = None
            self._chaos[name] = Chaos(name)
            self._weights[name] = random.choice([0.5, 1.0, 4.0])
        # The last of them comes only later.
        before, after = names[:-1], random.sample(names, len(names))
        made = dict(things.make(number) for number in range(KEYS))
        service = self._shard(before)
        for thing in made.values():
            await service.put(thing)
        places = self._places(before)
        for key in made:
            if len(places.get(key, [])) != 1:
                self._wrong(f"in {len(places.get(key, []))} places and not in one")
        await self._all_there(service, made)
        await self._one_down(before, made, places)
        await self._grow(names, after, made, places)
        gone = random.choice(names)
        await self._all_there(
            self._shard([name for name in after if name != gone]),
            {key: thing for key, thing in made.items() if self._places(names)[key] != [gone]},
        )

    def _shard(self, names: list[str]) -> Any:
        kit = self._things.kit
        members = [kit.chaos(self._stores[name], self._chaos[name]) for name in names]
        return kit.shard(
            members, names, self.placement(names, [self._weights[name] for name in names])
        )

    def _places(self, names: list[str]) -> dict[bytes, list[str]]:
        places: dict[bytes, list[str]] = {}
        for name in names:
            for key in self._things.held(self._stores[name]):
                places.setdefault(key, []).append(name)
        return places

    async def _all_there(self, service: Any, made: dict[bytes, Any]) -> None:
        for key, thing in made.items():
            if await self._things.get(service, key) != thing:
                self._wrong("what a member has is not found")

    async def _one_down(
        self, names: list[str], made: dict[bytes, Any], places: dict[bytes, list[str]]
    ) -> None:
        """Of what is not there nobody knows then; the rest is there as before."""
        down = self._random.choice(names)
        self._chaos[down].rates = {"error": 1.0}
        service = self._shard(names)
        nowhere, _ = self._things.make(KEYS)
        for key in [*made, nowhere]:
            lost = key == nowhere or places[key] == [down]
            try:
                got = await self._things.get(service, key)
            except Unavailable:
                if not lost:
                    self._wrong("not delivered, though its member is well")
            else:
                if got is None:
                    self._wrong("a false absent: a member is down")
        self._chaos[down].rates = {}

    async def _grow(
        self,
        names: list[str],
        after: list[str],
        made: dict[bytes, Any],
        places: dict[bytes, list[str]],
    ) -> None:
        """A member is added, and everybody written in another order."""
        service = self._shard(after)
        await self._all_there(service, made)
        for key, thing in made.items():
            await service.put(thing)
            if moved := set(self._places(names)[key]) - set(places[key]) - {names[-1]}:
                self._wrong(f"the new member's coming moved something to {moved.pop()}")

    def _wrong(self, what: str) -> None:
        self.broken.append(f"{self._name}: {what}")
