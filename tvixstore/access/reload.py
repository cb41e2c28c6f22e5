"""Files that are read again when they change: looked at once a second, by one task for all.

Not when they are needed: a token that was taken out of its file is to be of no use soon after, also
if nobody came in between, and no request should wait for a disk.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from tvixstore.errors import ConfigError
from tvixstore.log import Logger
from tvixstore.pools import Pool

_log = Logger("tvixstore.access")

_INTERVAL: Final = 1.0

Read = TypeVar("Read")
# When each file changed, and which one it is; `None` for one that is not there.
_Version = tuple["tuple[int, int, int, int] | None", ...]


@dataclass(eq=False)
class Reloaded(Generic[Read]):
    """What `read` makes of the files at `paths` together, for `use` to take when it is another.

    `read` runs in a thread, and raises `ConfigError` for what cannot be used. Then what there was
    stays: half of a renewal, or a slip of an editor, is not to lock everybody out.
    """

    # The key that names them, for the log.
    name: str
    paths: Sequence[Path]
    read: Callable[[], Read]
    use: Callable[[Read], Awaitable[None]]
    _version: _Version = field(default=(), init=False)

    def first(self) -> Read:
        """What there is at the start. Blocks. Raises `ConfigError`."""
        self._version = self._look()
        return self.read()

    async def look(self, files: Pool) -> None:
        """Reads them again if they changed since the last look, and never raises for them."""
        version = await files.run(self._look)
        if version == self._version:
            return
        # Before they are read: what changes meanwhile is seen by the next look.
        self._version = version
        try:
            read = await files.run(self.read)
        except ConfigError as error:
            _log.error("access.not_reloaded", key=self.name, reason=error)
            return
        try:
            await self.use(read)
        except BaseException:
            # It does not count yet: the next look tries again.
            self._version = ()
            raise
        _log.info("access.reloaded", key=self.name)

    def _look(self) -> _Version:
        return tuple(version_of(path) for path in self.paths)


class Watch:
    """Looks at `reloaded` until it is cancelled."""

    def __init__(self, files: Pool, reloaded: Sequence[Reloaded[Any]]) -> None:
        self._files = files
        self._reloaded = reloaded

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            for each in self._reloaded:
                try:
                    await each.look(self._files)
                except Exception as error:
                    # A mistake of ours: the other files are still to be looked at.
                    _log.error("access.watch_failed", exc_info=error, key=each.name)


def version_of(path: Path) -> tuple[int, int, int, int] | None:
    """When the file changed, and which one it is; `None` for one that is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    # The time of change too: permissions may be what is put right.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
