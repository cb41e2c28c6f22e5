"""State directories in use: one engine and one disk guard a path, whoever keeps something there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tvixstore.compose.model import Store as Settings
from tvixstore.kv import DiskGuard, LmdbEngine, StateDirectory
from tvixstore.log import Logger
from tvixstore.metrics import Metrics
from tvixstore.policy.tasks import end
from tvixstore.pools import Pools

log = Logger("tvixstore.compose")


@dataclass(frozen=True, slots=True)
class Store:
    """One state directory, held by this process."""

    state: StateDirectory
    engine: LmdbEngine
    guard: DiskGuard


class Stores:
    """The state directories of one composition, by path."""

    def __init__(self, pools: Pools, metrics: Metrics) -> None:
        self._pools = pools
        self._metrics = metrics
        self._stores: dict[Path, Store] = {}
        self._counting: list[asyncio.Task[None]] = []

    def at(self, path: Path, settings: Settings) -> Store:
        """The store at `path`, opened with `settings` if it is not open yet.

        Blocks for some milliseconds. Raises `ConfigError`, one line, if it cannot be used.
        """
        place = path.resolve()
        if place not in self._stores:
            self._stores[place] = self._open(path, settings)
        return self._stores[place]

    async def aclose(self) -> None:
        """Commits what waits, and lets the next process in."""
        await end(self._counting)
        for store in reversed(self._stores.values()):
            try:
                await store.engine.aclose()
            finally:
                store.state.close()

    def _open(self, path: Path, settings: Settings) -> Store:
        state = StateDirectory(path)
        try:
            engine = LmdbEngine(state.index, durability=settings.durability)
            guard = DiskGuard(
                path,
                min_free=settings.min_free,
                max_size=settings.max_size,
                measured={"index": lambda: engine.used_bytes},
                metrics=self._metrics,
            )
        except BaseException:
            state.close()
            raise
        # A large store takes seconds to add up: nobody waits for it to start.
        task = asyncio.create_task(self._count(guard, state), name=f"count {path}")
        self._counting.append(task)
        return Store(state, engine, guard)

    async def _count(self, guard: DiskGuard, state: StateDirectory) -> None:
        try:
            await guard.count("chunks", state.chunks, self._pools)
        except OSError as error:
            log.warning("store.uncounted", path=state.chunks, reason=error)
