"""Members that lack what others have, and the task that brings it to them, one after the other."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tvixstore.errors import StoreError
from tvixstore.log import Logger
from tvixstore.policy.outage import Outage
from tvixstore.policy.tasks import end
from tvixstore.policy.ttl import TtlMap

Key = TypeVar("Key", bound=Hashable)

# Repairs that may wait; beyond that, what is found lacking then is left for the next time.
_WAITING = 10_000
# Keys, and seconds, for which it is remembered who said that he lacks one.
_KEYS = 10_000
_REMEMBERED = 60.0

log = Logger("tvixstore.policy.repairs")


@dataclass(frozen=True, slots=True)
class Repair(Generic[Key]):
    """`target` is to get `key` from `source`, both by their places."""

    key: Key
    source: int
    target: int


class Repairs(Generic[Key]):
    """Does the repairs that are asked for, by `work`, which says whether there was anything to do.

    It lives in one task, as long as there are any; `aclose` ends it, and drops what waits. `count`
    hears of each outcome: done, failed or dropped.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Repair[Key]], Awaitable[bool]],
        count: Callable[[str], None] = lambda _: None,
        *,
        waiting: int = _WAITING,
    ) -> None:
        self._name = name
        self._work = work
        self._count = count
        self._most = waiting
        # In the order of asking; the same one is not asked for twice.
        self._queue: dict[Repair[Key], None] = {}
        self._lacking: TtlMap[Key, frozenset[int]] = TtlMap(_KEYS)
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._failing = Outage(log, "mirror.repair_failed", "mirror.repair_works")
        self._full = False

    def __len__(self) -> int:
        return len(self._queue)

    def lacks(self, key: Key, member: int) -> None:
        """That member does not have the key, or not in one piece."""
        self._lacking.put(key, (self._lacking.get(key) or frozenset()) | {member}, _REMEMBERED)

    def has(self, key: Key, member: int) -> None:
        """That member has the key: whoever lacked it gets it from there."""
        lacking = self._lacking.get(key)
        if lacking is None:
            return
        self._lacking.discard(key)
        for target in sorted(lacking - {member}):
            self.request(Repair(key, member, target))

    def request(self, repair: Repair[Key]) -> None:
        """Has it done sometime."""
        if self._closed or repair in self._queue:
            return
        if len(self._queue) >= self._most:
            self._count("dropped")
            if not self._full:
                self._full = True
                log.warning("mirror.repairs_dropped", node=self._name, waiting=len(self._queue))
            return
        self._queue[repair] = None
        if self._task is None or self._task.done():
            # A fresh context: the task outlives the call, and its deadline, that found this.
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"repair {self._name}", context=contextvars.Context()
            )

    async def aclose(self) -> None:
        """Stops. May be called twice."""
        self._closed = True
        self._queue.clear()
        if self._task is not None:
            await end([self._task])

    async def _run(self) -> None:
        while self._queue:
            repair = next(iter(self._queue))
            try:
                done = await self._work(repair)
            except (StoreError, OSError) as error:
                self._count("failed")
                self._failing.failed(error)
            except Exception as error:
                self._count("failed")
                log.error("mirror.repair_crashed", exc_info=error, node=self._name)
            else:
                self._failing.over()
                if done:
                    self._count("done")
                    log.debug("mirror.repaired", node=self._name, key=_text(repair.key))
            finally:
                self._queue.pop(repair, None)
        self._full = False


def _text(key: object) -> str:
    return key.hex() if isinstance(key, bytes) else str(key)
