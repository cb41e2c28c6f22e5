"""The compose file, read again: on SIGHUP, and with `--watch` when it has changed.

One reload at a time. Whatever is wrong with the file, or with what it names, is said in the log,
and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tvixstore.access import version_of
from tvixstore.cli.find import load
from tvixstore.cli.notify import Notifier
from tvixstore.compose import Config, Daemon, lint
from tvixstore.compose.composition import Composition
from tvixstore.compose.generation import Changes
from tvixstore.compose.shared_paths import store_at
from tvixstore.errors import ConfigError, StoreError
from tvixstore.log import Logger
from tvixstore.policy.tasks import end
from tvixstore.pools import Pools

log = Logger("tvixstore.daemon")

# Keys of `[daemon]` that count from the next start only: what listens, and where, is there already.
NEEDS_RESTART: Final = (
    "grpc",
    "http",
    "state",
    "tls_cert",
    "tls_key",
    "client_ca",
    "tokens_file",
)
# Seconds between two looks at the file; and looks for which it may be missing, as it is while some
# editors write it.
_INTERVAL: Final = 1.0
_MISSING: Final = 5


@dataclass(frozen=True, slots=True)
class Watched:
    """The compose file as it was just before it was read: what is written after that is new."""

    path: Path
    version: tuple[int, int, int, int] | None

    @classmethod
    def look(cls, path: Path) -> Watched:
        return cls(path, version_of(path))


class Reloader:
    """Reads the file at `path` again when it is asked to.

    `began` is what the daemon started with, as it was written; `where` says for people where it
    serves; `changed_over` is told of what counts from now on, in that very moment.
    """

    def __init__(
        self,
        path: Path | None,
        began: Daemon,
        composition: Composition,
        notifier: Notifier,
        where: str,
        changed_over: Callable[[Daemon], None],
    ) -> None:
        self._path = path
        self._began = began
        self._composition = composition
        self._notifier = notifier
        self._where = where
        self._changed_over = changed_over
        # What is fixed, as it is: where sockets were inherited, that is not what was written.
        daemon = composition.config.daemon
        self._fixed = {key: getattr(daemon, key) for key in NEEDS_RESTART}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, asked: asyncio.Event, watched: Watched | None) -> None:
        """From now on it reloads whenever `asked` is set, and clears it; what is `watched` sets it
        when it is another file."""
        self._tasks.append(asyncio.create_task(self._run(asked), name="reload"))
        if watched is not None:
            watching = _watch(self._composition.pools, watched, asked)
            self._tasks.append(asyncio.create_task(watching, name="watch the compose file"))

    async def aclose(self) -> None:
        """Breaks off what it does."""
        await end(self._tasks)

    async def _run(self, asked: asyncio.Event) -> None:
        while True:
            await asked.wait()
            asked.clear()
            self._notifier.reloading()
            status = f"{self._where}; the compose file could not be reloaded, see the log"
            try:
                if await self.reload():
                    status = self._where
            except Exception as error:
                # A mistake of ours: the next file may be one that we can do.
                log.error("reload.failed", exc_info=error, reason=str(error))
                self._count("failed")
            finally:
                self._notifier.reloaded(status)

    async def reload(self) -> bool:
        """Does it; whether the file could be used."""
        try:
            config = await self._composition.pools.files.run(_read, self._path)
            effective = self._effective(config)
            changes = await self._composition.reload(
                effective, lambda: self._changed_over(effective.daemon)
            )
        except StoreError as error:
            log.error("reload.failed", reason=str(error), meaning="all is as it was before")
            self._count("failed")
            return False
        self._report(config, changes)
        return True

    def _effective(self, config: Config) -> Config:
        """`config`, with what cannot be changed as it is."""
        daemon = config.daemon.model_copy(update=self._fixed)
        if config.graph is None:
            store = config.store
        else:
            store = store_at(config.graph, daemon.state)
        return Config(config.name, config.folder, daemon, store, config.substituters, config.graph)

    def _report(self, config: Config, changes: Changes) -> None:
        keys = [
            key for key in NEEDS_RESTART if getattr(config.daemon, key) != getattr(self._began, key)
        ]
        if stuck := [*keys, *changes.needs_restart]:
            log.warning("reload.needs_restart", keys=", ".join(stuck))
        if not changes.any:
            log.info("reload.unchanged", file=config.name)
            self._count("unchanged")
            return
        for warning in lint(config):
            log.warning("compose.lint", file=config.name, reason=warning)
        log.info(
            "reload.done",
            file=config.name,
            kept=", ".join(changes.kept),
            added=", ".join(changes.added) or None,
            removed=", ".join(changes.removed) or None,
            changed=", ".join(changes.changed) or None,
            settings=", ".join(changes.settings) or None,
        )
        self._count("done")

    def _count(self, outcome: str) -> None:
        self._composition.metrics.reloads.labels(outcome).inc()


def _read(path: Path | None) -> Config:
    """As `load`, but for a file with nothing in it, which would be a composition of defaults: that
    is what is left where writing it failed, and no reason to forget every substituter."""
    config = load(path)
    if path is not None and not path.stat().st_size:
        raise ConfigError(
            f"{path}: is empty: writing it may have failed; for a composition of defaults, "
            "write [daemon] into it"
        )
    return config


async def _watch(pools: Pools, watched: Watched, asked: asyncio.Event) -> None:
    """Sets `asked` when the file is another one, and stays so from one look to the next: half of it
    may have been written."""
    known = seen = watched.version
    missing = 0
    while True:
        await asyncio.sleep(_INTERVAL)
        before, seen = seen, await pools.files.run(version_of, watched.path)
        missing = 0 if seen is not None else missing + 1
        if seen == known or seen != before or 0 < missing < _MISSING:
            continue
        known = seen
        asked.set()
