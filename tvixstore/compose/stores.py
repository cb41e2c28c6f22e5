"""State directories in use: one engine and one disk guard a path, whoever keeps something there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from tvixstore.policy.tasks import end
from tvixstore.pools import Pools

log = Logger("tvixstore.compose")


@dataclass(frozen=True, slots=True)
class Store:
    """One state directory, held by this process."""

    state: StateDirectory
    engine: LmdbEngine
    guard: DiskGuard
    references: References
    collector: Collector
    access: LastAccess


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
        self._tasks: list[asyncio.Task[None]] = []

    def at(self, path: Path, settings: Settings) -> Store:
        """The store at `path`, opened with `settings` if it is not open yet.

        Blocks for some milliseconds; for longer where references have to be counted first. Raises
        `ConfigError`, one line, if it cannot be used.
        """
        place = path.resolve()
        if place not in self._stores:
            self._stores[place] = self._open(path, settings)
        return self._stores[place]

    def sweep(self, store: Store, sweep: Callable[[], Awaitable[int]]) -> None:
        """Has chunk files removed that nothing names. Nobody waits for it to start."""
        self._begin(_sweep(store, sweep), f"sweep {store.state.path}")

    async def aclose(self) -> None:
        """Commits what waits, and lets the next process in."""
        await end(self._tasks)
        for store in reversed(self._stores.values()):
            try:
                await store.access.aclose()
            finally:
                try:
                    await store.engine.aclose()
                finally:
                    store.state.close()

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
                max_size=None if settings.max_size is None else int(HIGH * settings.max_size),
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
        access = self._access(engine, settings)
        collector = Collector(Freeing(references), state.chunks, self._pools)
        store = Store(state, engine, guard, references, collector, access)
        self._keep_small(store, settings)
        return store

    def _access(self, engine: LmdbEngine, settings: Settings) -> LastAccess:
        grain = GRAIN if settings.max_age is None else min(GRAIN, int(settings.max_age / 4))
        return LastAccess(engine.table("access"), grain=grain)

    def _keep_small(self, store: Store, settings: Settings) -> None:
        """Begins to evict, where it is known what may go."""
        path, engine = store.state.path, store.engine
        if (reason := self._why_uncounted(path.resolve())) is not None:
            if settings.max_size is not None or settings.max_age is not None:
                log.warning("eviction.off", path=path, reason=reason)
            return
        evictor = Evictor(
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
        self._begin(evictor.run(), f"evict {path}")

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))


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
