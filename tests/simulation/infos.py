"""A world of compositions of path infos, some of whose members have another NAR of a path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from tests.pathinfo.scripted import info_of, nar_of
from tests.simulation.compositions import ACTIONS, Composition, Kit, afterwards, compose, drive
from tests.simulation.paths import Keeps
from tests.support.virtual_clock import now
from tvixstore.errors import CorruptData, StorageFull, StoreError, Unavailable
from tvixstore.nix import StorePath
from tvixstore.pathinfo import CachedPathInfoService, Description, PathInfo, PathInfoService
from tvixstore.pathinfo.arrivals import AnnouncingPathInfoService
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.chaos import ChaosPathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.limit import LimitPathInfoService
from tvixstore.pathinfo.mirror import MirrorPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.pathinfo.shard import ShardPathInfoService
from tvixstore.pathinfo.timeout import TimeoutPathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.streams import ByteStream

PATHS = 5
LOOKUP = 10.0


class Store(Keeps):
    """May be full soon, and gives a part of a NAR where one is asked for."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.room = random.choice([None, None, None, 0, 2])

    async def put(self, info: PathInfo) -> PathInfo:
        if self.room is not None:
            self.room -= 1
            if self.room < 0:
                raise StorageFull("no room")
        return await super().put(info)

    def nar(self, info: PathInfo) -> bytes:
        return NARS[info.nar_sha256]


@dataclass(eq=False)
class Alone(PathInfoWrapper):
    """Notes in `crowds` what is fetched by two at once, where that `matters`."""

    crowds: list[str]
    matters: bool
    fetching: Counter[bytes] = field(default_factory=Counter)

    async def get(self, path_hash: bytes) -> PathInfo | None:
        self.fetching[path_hash] += 1
        if self.matters and self.fetching[path_hash] > 1:
            self.crowds.append(f"{path_hash!r}, at {now():.3f} s")
        try:
            return await self.inner.get(path_hash)
        finally:
            self.fetching[path_hash] -= 1


KIT = Kit(
    store=Store,
    chaos=ChaosPathInfoService,
    announcing=AnnouncingPathInfoService,
    limit=LimitPathInfoService,
    timeout=TimeoutPathInfoService,
    retry=RetryPathInfoService,
    breaker=BreakerPathInfoService,
    # What members say of a NAR is between them and the signatures.
    verify=None,
    negative=NegativePathInfoService,
    race=RacingPathInfoService,
    fallback=lambda members, names: FallbackPathInfoService(members, names, LOOKUP),
    shard=ShardPathInfoService,
    mirror=lambda members, names, quorum, repair: MirrorPathInfoService(
        members, names, LOOKUP, quorum, repair
    ),
    cache=lambda near, far, _: CachedPathInfoService(near, far),
    alone=Alone,
    faults=("error", "stall", "disconnect"),
)


def _variants(number: int) -> list[PathInfo]:
    """The NARs that there are of one path."""
    path = StorePath(f"{number}".encode().ljust(20, b"."), f"path-{number}")
    return [info_of(f"{number}{build}", path) for build in "ab"]


INFOS = [_variants(number) for number in range(PATHS)]
NARS = {
    info.nar_sha256: nar_of(f"{number}{build}")
    for number, variants in enumerate(INFOS)
    for build, info in zip("ab", variants, strict=True)
}


async def simulate_infos(seed: int, kit: Kit = KIT) -> list[str]:
    """What the world of that seed broke of the invariants."""
    random = Random(f"infos {seed}")
    world = compose(f"infos, seed {seed}", kit, random)
    callers = _Callers(world, random)
    await drive(world, random, [callers.action() for _ in range(ACTIONS)])
    await afterwards(world, callers.check_all)
    return world.broken


class _Callers:
    """Who uses a world, and what they have to get."""

    def __init__(self, world: Composition, random: Random) -> None:
        self._world = world
        self._random = random
        self._root: PathInfoService = world.root
        self._goes_on = all(node.kind != "cache" for node in world.shape.nodes())
        # Most paths are the same everywhere.
        self._others = random.random() < 0.3
        # The last one comes only if somebody puts it.
        for variants in INFOS[:-1]:
            for leaf in world.leaves.values():
                if random.random() < 0.5:
                    info = self._variant(variants)
                    leaf.store.infos[info.store_path.hash] = info

    def _variant(self, variants: list[PathInfo]) -> PathInfo:
        return variants[1 if self._others and self._random.random() < 0.3 else 0]

    def action(self) -> Callable[[], Any]:
        random = self._random
        variants = random.choice(INFOS)
        key = variants[0].store_path.hash
        offset = random.choice([0, 0, random.randrange(100)])
        length = random.choice([None, None, random.randrange(1, 100)])
        actions: list[Callable[[], Any]] = [
            partial(self._describe, key),
            partial(self._get, key),
            partial(self._get, key),
            partial(self._read, key, offset, length),
            partial(self._read, key, 0, None),
            partial(self._look_into, key),
            partial(self._put, self._variant(variants)),
            self._list,
        ]
        return random.choice(actions)

    async def check_all(self) -> None:
        for variants in INFOS:
            key = variants[0].store_path.hash
            await self._describe(key)
            await self._get(key)
            await self._read(key)
        await self._list()

    def _holders(self, key: bytes, nar: bytes | None = None) -> list[Any]:
        infos = [(leaf, leaf.store.infos.get(key)) for leaf in self._world.leaves.values()]
        return [leaf for leaf, info in infos if info is not None and nar in (None, info.nar_sha256)]

    async def _ask(self, call: str, key: bytes, asking: Any, nar: bytes | None = None) -> Any:
        world, holders = self._world, self._holders(key, nar)
        settled = key not in world.arriving
        # With several NARs of a path, the one that was described may be gone from the rest.
        well = any(leaf.healthy for leaf in holders) and (not self._others or nar is not None)
        try:
            answer = await asking
        except (Unavailable, CorruptData) as error:
            if well and settled:
                world.wrong(f"not delivered: {call} {key!r}: {error}")
            return None
        if answer is None and holders and settled:
            world.wrong(f"a false absent: {call} {key!r}")
        if answer is not None and not self._holders(key):
            world.wrong(f"there is nothing of the kind: {call} {key!r}")
        return answer

    def _check(self, key: bytes, said: Description | None) -> None:
        if said is None:
            return
        if said.store_path.hash != key or not self._holders(key, said.nar_sha256):
            self._world.wrong(f"nobody has such a NAR of {key!r}")

    async def _describe(self, key: bytes) -> Description | None:
        begun = now()
        said: Description | None = await self._ask("describe", key, self._root.describe(key))
        self._check(key, said)
        if now() - begun > self._world.most:
            self._world.wrong(f"describe took {now() - begun:.3f} s")
        return said

    async def _get(self, key: bytes) -> None:
        self._check(key, await self._ask("get", key, self._root.get(key)))

    async def _read(self, key: bytes, offset: int = 0, length: int | None = None) -> None:
        description = await self._describe(key)
        if description is None:
            return

        async def ask() -> bytes | None:
            stream = await self._root.open_nar(description, offset, length)
            if stream is None:
                return None
            try:
                return await stream.read_all()
            except StoreError:
                # Of a part, or of the rest after a near that broke, nobody has a hash under which
                # one could go on.
                if self._goes_on and not offset and length is None:
                    raise
                return b""

        got = await self._ask("open_nar", key, ask(), description.nar_sha256)
        end = None if length is None else offset + length
        if got and got != NARS[description.nar_sha256][offset:end]:
            self._world.wrong(f"wrong bytes: {key!r} from {offset} for {length}")

    async def _look_into(self, key: bytes) -> None:
        """Reads a piece, and leaves."""
        description = await self._describe(key)
        if description is None:
            return

        async def ask() -> bytes | None:
            stream: ByteStream | None = await self._root.open_nar(description)
            if stream is None:
                return None
            async with stream:
                return await anext(stream, b"")

        got = await self._ask("look into", key, ask(), description.nar_sha256)
        if got is not None and not NARS[description.nar_sha256].startswith(got):
            self._world.wrong(f"wrong bytes: the first of {key!r}")

    async def _list(self) -> None:
        seen = set[bytes]()
        try:
            async with aclosing(self._root.list()) as infos:
                async for info in infos:
                    if info.store_path.hash in seen:
                        self._world.wrong(f"listed twice: {info.store_path}")
                    seen.add(info.store_path.hash)
                    self._check(info.store_path.hash, info)
        except StoreError:
            return

    async def _put(self, info: PathInfo) -> None:
        world, key = self._world, info.store_path.hash
        world.arriving.append(key)
        try:
            kept = await self._root.put(info)
        except StoreError:
            return
        finally:
            world.arriving.remove(key)
        if not kept.same_nar(info):
            world.wrong(f"another NAR was kept of {key!r}")
        if not self._holders(key, info.nar_sha256):
            world.wrong(f"put, and nowhere: {key!r}")
