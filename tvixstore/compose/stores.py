"""State directories in use: one engine and one disk guard a path, whoever keeps something there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tvixstore.blob.staging import to_the_end
from tvixstore.compose.model import Store as Settings
from tvixstore.errors import ConfigError, StoreError
from tvixstore.evict import (
    Candidates,
    Collector,
    Evictor,
    Limits,
    StoredEdges,
    pinned_closures,
    rebuild_now,
)
from tvixstore.evict.limits import HIGH
from tvixstore.kv import DiskGuard, Freeing, Holds, LmdbEngine, References, StateDirectory
from tvixstore.log import Logger
from tvixstore.metrics import Metrics
from tvixstore.pathinfo import LastAccess
from tvixstore.pathinfo.access import GRAIN
from tvixstore.policy.striped import StripedLocks
from tvixstore.policy.tasks import end
from tvixstore.pools import Pools

log = Logger("tvixstore.compose")

# What is said of how much there may be in a store.
_LIMITS: Final = ("max_size", "min_free", "max_age")


@dataclass(eq=False, slots=True)
class Store:
    """One state directory, held by this process."""

    state: StateDirectory
    engine: LmdbEngine
    guard: DiskGuard
    references: References
    collector: Collector
    access: LastAccess
    # What the compose file says of it by now; `durability` as it was opened with.
    settings: Settings
    # Held by whoever writes to one of its paths.
    locks: StripedLocks = field(default_factory=StripedLocks)
    evictor: Evictor | None = None
    evicting: asyncio.Task[None] | None = None
    # Why nothing is evicted, once it was said.
    unevicted: str | None = None
    sweeping: list[asyncio.Task[None]] = field(default_factory=list)

    async def aclose(self) -> None:
        """Commits what waits, and lets the next process in."""
        evicting = [] if self.evicting is None else [self.evicting]
        await end([*evicting, *self.sweeping])
        try:
            await self.access.aclose()
        finally:
            try:
                await self.engine.aclose()
            finally:
                self.state.close()


class Stores:
    """The state directories of one composition, by path."""

    def __init__(
        self, pools: Pools, metrics: Metrics, why_uncounted: Callable[[Path], str | None]
    ) -> None:
        """`why_uncounted` says of which of them nobody knows what is needed in it, and why."""
        # What is in use, in whichever of them it is.
        self.holds = Holds()
        self._why_uncounted = why_uncounted
        self._pools = pools
        self._metrics = metrics
        self._stores: dict[Path, Store] = {}
        # Evictors that were told to end.
        self._ending: set[asyncio.Task[None]] = set()

    def at(self, path: Path, settings: Settings) -> Store:
        """The store at `path`, opened with `settings` if it is not open yet.

        Blocks for some milliseconds; for longer where references have to be counted first. Raises
        `ConfigError`, one line, if it cannot be used.
        """
        place = path.resolve()
        if place not in self._stores:
            self._stores[place] = self._open(path, settings)
            self.keep_small(place)
        return self._stores[place]

    async def open(self, path: Path, settings: Settings) -> None:
        """As `at`, in a thread; nothing is evicted before it is told to be kept small."""
        await to_the_end(self._open_in_thread(path, settings))

    def places(self) -> set[Path]:
        """Where stores are open."""
        return set(self._stores)

    def settings(self, path: Path) -> Settings:
        """What is said of the open store at `path`."""
        return self._stores[path.resolve()].settings

    def adjust(self, path: Path, settings: Settings) -> bool:
        """From now on `settings` hold for the open store at `path`, as far as they can: returns
        whether it has to be opened anew for the rest, which is its durability."""
        store = self._stores[path.resolve()]
        durability = store.settings.durability
        before, store.settings = (
            store.settings,
            settings.model_copy(update={"durability": durability}),
        )
        if any(getattr(before, key) != getattr(settings, key) for key in _LIMITS):
            store.guard.limit(min_free=settings.min_free, max_size=_highest(settings.max_size))
            store.access.be_true_to(_grain(settings))
            if store.evictor is not None:
                store.evictor.change(settings.max_size, settings.min_free, settings.max_age)
        return settings.durability != durability

    def keep_small(self, place: Path) -> None:
        """Has what is there evicted from now on, if it is known what may go, and else not."""
        store = self._stores[place]
        reason = self._why_uncounted(place)
        if reason is None and store.evicting is None:
            store.evictor = self._evictor(store)
            store.evicting = asyncio.create_task(
                store.evictor.run(), name=f"evict {store.state.path}"
            )
            store.unevicted = None
        elif reason is not None:
            if store.evicting is not None:
                store.evicting.cancel()
                self._ending.add(store.evicting)
                store.evicting.add_done_callback(self._ending.discard)
                store.evictor = store.evicting = None
            limited = store.settings.max_size is not None or store.settings.max_age is not None
            if limited and reason != store.unevicted:
                log.warning("eviction.off", path=store.state.path, reason=reason)
                store.unevicted = reason

    def keep_all_small(self) -> None:
        for place in self._stores:
            self.keep_small(place)

    def sweep(self, store: Store, sweep: Callable[[], Awaitable[int]]) -> None:
        """Has chunk files removed that nothing names. Nobody waits for it to start."""
        store.sweeping.append(
            asyncio.create_task(_sweep(store, sweep), name=f"sweep {store.state.path}")
        )

    async def close(self, places: Collection[Path]) -> None:
        """Closes those of them that are open there; nobody uses them any more."""
        closing = [self._stores.pop(place) for place in places if place in self._stores]
        await _close(closing)
        self.show()

    def show(self) -> None:
        """Has metrics tell of the first store, which is the daemon's own."""
        for store in self._stores.values():
            store.guard.show()
            return

    async def aclose(self) -> None:
        """Commits what waits, and lets the next process in."""
        stores, self._stores = list(self._stores.values()), {}
        await end(set(self._ending))
        await _close(stores)

    async def _open_in_thread(self, path: Path, settings: Settings) -> None:
        place = await self._pools.files.run(path.resolve)
        if place not in self._stores:
            self._stores[place] = await self._pools.files.run(self._open, path, settings)

    def _open(self, path: Path, settings: Settings) -> Store:
        state = StateDirectory(path)
        try:
            engine = LmdbEngine(state.index, durability=settings.durability)
        except BaseException:
            state.close()
            raise
        try:
            references = References(engine, self.holds, StoredEdges())
            _bring_up_to_date(state, references)
            guard = DiskGuard(
                path,
                min_free=settings.min_free,
                max_size=_highest(settings.max_size),
                measured={
                    "chunks": lambda: references.chunk_file_bytes,
                    "index": lambda: references.index_bytes,
                },
                reusable={"index_free": lambda: references.index_free_bytes},
                metrics=self._metrics,
            )
        except BaseException:
            engine.abandon()
            state.close()
            raise
        access = LastAccess(engine.table("access"), grain=_grain(settings))
        collector = Collector(Freeing(references), state.chunks, self._pools)
        return Store(state, engine, guard, references, collector, access, settings)

    def _evictor(self, store: Store) -> Evictor:
        settings, engine = store.settings, store.engine
        return Evictor(
            Limits(store.guard, settings.max_size, settings.min_free),
            store.guard,
            Candidates(
                engine.table("access"),
                store.access,
                pinned_closures(engine.table("pins"), engine.table("pathinfos")),
            ),
            engine.table("pathinfos"),
            store.collector,
            store.access,
            self._metrics,
            max_age=settings.max_age,
        )


async def _close(stores: Sequence[Store]) -> None:
    async with AsyncExitStack() as closing:
        for store in stores:
            closing.push_async_callback(store.aclose)


def _highest(max_size: int | None) -> int | None:
    """How far writers go."""
    return None if max_size is None else int(HIGH * max_size)


def _grain(settings: Settings) -> int:
    return GRAIN if settings.max_age is None else min(GRAIN, int(settings.max_age / 4))


def _bring_up_to_date(state: StateDirectory, references: References) -> None:
    """Counts all references in a state of the version that did not count them."""
    if not state.outdated:
        return
    log.info("state.upgrading", path=state.path)
    try:
        rebuilt = rebuild_now(references)
        state.is_current()
    except (StoreError, OSError) as error:
        raise ConfigError(
            f"state directory {state.path} cannot be brought to this version: {error}: "
            "make room, or name an empty directory (it fills again from the substituters)"
        ) from error
    log.info("state.upgraded", path=state.path, rows=rebuilt.rows, dropped=rebuilt.dropped)


async def _sweep(store: Store, sweep: Callable[[], Awaitable[int]]) -> None:
    try:
        await sweep()
    except (StoreError, OSError) as error:
        log.warning("store.unswept", path=store.state.chunks, reason=error)
