"""A running composition: everything that a graph needs to work, opened and closed in order.

Some of it is there as long as the process: the state, what was remembered, downloads under way.
The rest is a generation: what was built of one graph. `reload` builds the next one, of what has not
changed since and of what is new, and puts it in the place of the present one between two requests.
That one drains: what only it had is closed when the last request that began in it is over, and the
downloads that ran then. Several may drain at a time.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Collection, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from tvixstore import __version__
from tvixstore.activity import Activity
from tvixstore.castore import SizeRule
from tvixstore.compose.build import Arriving, Builder
from tvixstore.compose.config import Config
from tvixstore.compose.counting import home, why_uncounted
from tvixstore.compose.draining import Generations
from tvixstore.compose.generation import Changes, Generation, compare
from tvixstore.compose.graph import Graph
from tvixstore.compose.health import UpstreamHealth, sum_up
from tvixstore.compose.lower import lower
from tvixstore.compose.make_generation import make_generation, stores_of
from tvixstore.compose.nodes import LocalNode, NixNode
from tvixstore.compose.parts import close_services, close_upstreams
from tvixstore.compose.stores import Store, Stores
from tvixstore.explain import Explanations
from tvixstore.extras import CachedExtras
from tvixstore.http import Inbox, UpstreamStatus
from tvixstore.kv import KeyValue, LmdbEngine, MemoryKeyValue, StateDirectory
from tvixstore.log import Logger
from tvixstore.metrics import Metrics
from tvixstore.nar import NarIdentities
from tvixstore.pathinfo import PathInfoService, RememberedAnswers
from tvixstore.pathinfo.nix import Fills
from tvixstore.policy.tasks import end
from tvixstore.policy.uses import Uses
from tvixstore.pools import Pools
from tvixstore.tree import Content
from tvixstore.upkeep import Upkeep

log = Logger("tvixstore.compose")


class Composition:
    """What `config` stands for, running. Made by `open`; whoever has it closes it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.metrics = Metrics()
        self.pools = Pools()
        # What is under way, and what is told of requests afterwards.
        self.activity = Activity()
        self.explanations = Explanations()
        # None of its own: nothing in it needs to be kept.
        self.state: StateDirectory | None = None
        self._own: Store | None = None
        self._arriving = Arriving()
        # The graphs that count: of the generations that live, and of one that is being built.
        self._building: Graph | None = None
        self._present: Generation | None = None
        self._closing = AsyncExitStack()
        self._closing.callback(self.pools.close)
        self._stores = Stores(self.pools, self.metrics, self._why_uncounted)
        self._closing.push_async_callback(self._stores.aclose)
        self._generations = Generations(self._stores, self.metrics)

    @classmethod
    async def open(cls, config: Config, *, embedded: bool = False) -> Composition:
        """Opens the state and builds the services; asks no upstream anything.

        The daemon has a state in any case; `embedded`, only where a node has something to keep.

        Raises `ConfigError`, one line a mistake, for what cannot be used: the state directory, a
        file that a substituter names; and `Unavailable` where a peer is to be waited for and is not
        there.
        """
        composition = cls(config)
        try:
            await composition._open(embedded)
        except BaseException:
            await composition.aclose()
            raise
        return composition

    async def _open(self, embedded: bool) -> None:
        config, closing, metrics = self._config, self._closing, self.metrics
        metrics.build_info.labels(__version__, platform.python_version()).set(1)
        self._building = graph = lower(config)
        if not embedded or needs_state(config, graph):
            self._own = self._stores.at(config.daemon.state, config.store)
            self.state = self._own.state
            self._spool = self._own.state.spool
        else:
            folder = closing.enter_context(TemporaryDirectory(prefix="tvixstore-"))
            self._spool = Path(folder)
        engine = None if self._own is None else self._own.engine
        self._remembered = RememberedAnswers(_table(engine, "remembered"))
        self._calculated = _table(engine, "calculated")
        closing.push_async_callback(self._remembered.aclose)
        self._fills = Fills(
            self._spool,
            self.pools,
            metrics,
            admission=None if self._own is None else self._own.guard,
            max_downloads=config.daemon.max_downloads,
            verify_ahead=config.daemon.verify_ahead,
            sizes=SizeRule(config.daemon.directory_sizes),
            activity=self.activity,
        )
        # Closed from the last to the first: no new fills, then none, then no connections.
        closing.push_async_callback(self._generations.close_upstreams)
        closing.push_async_callback(self._fills.aclose)
        closing.push_async_callback(self._generations.close_services)
        generation, builder = await self._build(config, graph)
        self._install(generation, builder)
        self.activity.upstreams = self._upstreams
        summing = asyncio.create_task(sum_up(self._upstreams), name="sum up upstreams")
        closing.push_async_callback(end, [summing])

    async def reload(
        self, config: Config, changed_over: Callable[[], None] = lambda: None
    ) -> Changes:
        """Has `config` count from now on, as far as that can be; its state stays where it is.

        `changed_over` is called in the very moment from which the new services are the present
        ones. Raises `StoreError`, as `open` does, for what cannot be used: then all is as before.
        """
        async with self._generations.changing:
            present = self._generation
            self._building = graph = lower(config)
            before = self._stores.places()
            try:
                for path, settings in stores_of(graph):
                    await self._stores.open(path, settings)
                generation, builder = await self._build(config, graph)
            except BaseException:
                self._building = None
                await self._stores.close(self._stores.places() - before)
                raise
            changes = compare(present, generation)
            if not changes.any:
                self._building = None
                await self._generations.discard(builder.made)
                return changes
            needs_restart = self._install(generation, builder)
            changed_over()
            self._generations.drain(present, self._fills)
            return replace(changes, needs_restart=needs_restart)

    @property
    def _generation(self) -> Generation:
        assert self._present is not None, "it is not open"
        return self._present

    @property
    def uses(self) -> Uses:
        """Counts those who use what there is at present, for as long as they do: it is closed only
        after that."""
        return self._generation.uses

    @property
    def config(self) -> Config:
        return self._generation.config

    @property
    def path_infos(self) -> PathInfoService:
        return self._generation.path_infos

    @property
    def content(self) -> Content:
        return self._generation.content

    @property
    def nars(self) -> NarIdentities:
        return self._generation.nars

    @property
    def inbox(self) -> Inbox:
        return self._generation.inbox

    @property
    def extras(self) -> CachedExtras:
        return self._generation.extras

    @property
    def upkeep(self) -> Upkeep | None:
        return self._generation.upkeep

    def __repr__(self) -> str:
        return repr(self.path_infos)

    @property
    def draining(self) -> int:
        """How many generations before the present one are still used."""
        return self._generations.draining

    async def drained(self) -> None:
        """Returns when nothing is left of the generations before the present one."""
        await self._generations.drained()

    async def forget_absences(self, path_hashes: Collection[bytes] = ()) -> int:
        """Has everybody forget that something was absent, of some paths alone or of all there is;
        how many such answers were remembered.

        Raises `StoreError` if what is remembered on disk cannot be changed.
        """
        # From what is asked first to what remembers its answers.
        count = await self._remembered.forget_absences(path_hashes)
        count += self._generation.extras.far.forget_all()
        return count + self._arriving.forget(path_hashes)

    def trouble(self) -> str | None:
        """Why it cannot serve any more, if it cannot, for `/readyz`."""
        return None if self.state is None else self.state.trouble()

    def upstream_statuses(self) -> list[UpstreamStatus]:
        """How each substituter is, for `/readyz`."""
        return [upstream.status() for upstream in self._upstreams()]

    async def aclose(self) -> None:
        """Cancels fills, writes what waits, closes connections and the state."""
        await self._generations.end()
        await self._closing.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _upstreams(self) -> Iterable[UpstreamHealth]:
        return list(self._generation.health.values())

    async def _build(self, config: Config, graph: Graph) -> tuple[Generation, Builder]:
        """The generation of `graph`; nothing of it is left open if that fails."""
        builder = Builder(
            config,
            graph,
            pools=self.pools,
            metrics=self.metrics,
            stores=self._stores,
            remembered=self._remembered,
            calculated=self._calculated,
            spool=self._spool,
            fills=self._fills,
            arriving=self._arriving,
            before=self._generations.taken_over(),
        )
        try:
            generation = make_generation(builder, config, self._own)
            for peer in builder.connecting:
                await peer.connect()
        except BaseException:
            await close_services(builder.made)
            await close_upstreams(builder.made)
            raise
        assert generation.parts.issuperset(builder.made), "whatever is made is asked for"
        self._generations.parts |= generation.parts
        return generation, builder

    def _install(self, generation: Generation, builder: Builder) -> tuple[str, ...]:
        """Has `generation` be the present one; what of it takes a restart. Never waits."""
        config = generation.config
        present, self._present = self._present, generation
        self._generations.live.append(generation)
        self._building = None
        needs_restart = self._adjust_stores(config, generation)
        builder.take_effect(generation.parts)
        daemon = config.daemon
        self._fills.change(
            max_downloads=daemon.max_downloads,
            verify_ahead=daemon.verify_ahead,
            sizes=SizeRule(daemon.directory_sizes),
        )
        if present is not None:
            for name, health in present.health.items():
                if generation.health.get(name) is not health:
                    health.retire()
        for health in generation.health.values():
            health.show()
        return needs_restart

    def _adjust_stores(self, config: Config, generation: Generation) -> tuple[str, ...]:
        stores = dict(stores_of(generation.graph))
        if self._own is not None:
            stores = {self._own.state.path: config.store, **stores}
        stuck = [path for path, each in stores.items() if self._stores.adjust(path, each)]
        self._stores.keep_all_small()
        self._stores.show()
        return tuple(sorted({f"durability of {path.resolve()}" for path in stuck}))

    def _why_uncounted(self, place: Path) -> str | None:
        """Only where it is counted in every graph that counts."""
        graphs = [generation.graph for generation in self._generations.live]
        if self._building is not None:
            graphs.append(self._building)
        for graph in graphs:
            # Uploads and extras are kept beside their content, where that is counted.
            rows = home(graph) or self._config.daemon.state
            if (reason := why_uncounted(graph, place, rows=rows)) is not None:
                return reason
        return None


def needs_state(config: Config, graph: Graph) -> bool:
    """Whether anything in `graph` keeps something in the daemon's state."""
    return config.graph is None or any(
        isinstance(node, NixNode)
        or (isinstance(node, LocalNode) and node.path.resolve() == config.daemon.state.resolve())
        for _, _, node in graph.nodes()
    )


def _table(engine: LmdbEngine | None, name: str) -> KeyValue:
    return MemoryKeyValue() if engine is None else engine.table(name)
