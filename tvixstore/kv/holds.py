"""What must not be freed although nothing on disk refers to it, or will not for much longer.

Whoever reads a tree holds its root: what is held is not deleted, so it never lets go of its
children, and one hold is enough for all that is below. Whoever finds something present, and
therefore does not write it, holds it until the parent that he writes refers to it:

- in a *session* (`with holds.session():`), which is for fills and uploads, everything that was
  found or written is held until its end;
- elsewhere (puts over gRPC, `has`, Stat) for ten to twenty minutes, in two generations, of which
  the older one is forgotten every ten minutes.

**How a hold and the collector meet.** Holds are taken in the event loop; what goes is decided in
the thread that writes to LMDB, in the transaction that deletes it. The thread first says what it
is about to free (`freeing`), then looks at the holds, and leaves alone what is held. The loop first
takes its hold, then looks at `freeing`, and waits while one of its own is in there; only then it
looks whether that is present. Python's lock orders these four steps, so either the thread sees
the hold, or the loop sees what is being freed and waits. `freeing` is emptied in the loop when the
transaction is over, the files of freed chunks are unlinked and caches have forgotten what is gone:
so nobody finds in a cache what has been freed, and no new file is unlinked by an old decision.

Keys are a kind (`BLOB`, `DIRECTORY`) and a digest, or `PATH` and a path's hash. One `Holds` serves
all stores of a composition: what is held in one is held in all, which costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from typing import Final, Self

from tvixstore.castore import EMPTY_DIGEST, DirectoryNode, FileNode, Node

BLOB: Final = b"b"
DIRECTORY: Final = b"d"
# A path itself, not its tree: by its hash.
PATH: Final = b"p"

# Seconds after which a generation is over.
GENERATION: Final = 600.0
# Keys that one generation remembers; with more, it holds everything.
MOST_KEYS: Final = 500_000

_sessions: ContextVar[tuple[Session, ...]] = ContextVar("tvixstore_sessions", default=())


def key_of(node: Node) -> bytes | None:
    """The key of what `node` stands for; `None` where there is nothing to be kept for it."""
    match node:
        case DirectoryNode(digest):
            return DIRECTORY + digest.raw
        case FileNode(digest) if digest != EMPTY_DIGEST:
            return BLOB + digest.raw
    return None


class Hold:
    """Keys that are held until `release`, which may be called twice."""

    def __init__(self, holds: Holds, keys: Collection[bytes]) -> None:
        self._holds = holds
        self._keys = keys
        holds.add(keys)

    def release(self) -> None:
        keys, self._keys = self._keys, ()
        self._holds.drop(keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Session:
    """What one writer has found or written so far."""

    def __init__(self, holds: Holds) -> None:
        self.holds = holds
        self._keys: set[bytes] = set()

    def add(self, keys: Collection[bytes]) -> None:
        new = [key for key in keys if key not in self._keys]
        self.holds.add(new)
        self._keys.update(new)

    def release(self) -> None:
        keys, self._keys = self._keys, set()
        self.holds.drop(keys)


class Holds:
    """Belongs to one event loop; `is_held` and the sets of `register` are for other threads too."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._held: Counter[bytes] = Counter()
        self._recent: set[bytes] = set()
        self._older: set[bytes] = set()
        # Until when everything is held, because there was more than a generation remembers.
        self._all_until = float("-inf")
        self._turned = now()
        self._freeing: list[set[bytes]] = []
        self._waiting: list[asyncio.Future[None]] = []

    def register(self) -> set[bytes]:
        """A set for whoever frees: he puts in what he is about to free, then asks `is_held`.

        What is not held he frees, and takes everything out again, in the loop, and calls `settled`.
        """
        freeing: set[bytes] = set()
        self._freeing.append(freeing)
        return freeing

    def settled(self) -> None:
        """Something was taken out of a set of `register`."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def is_held(self, key: bytes) -> bool:
        return (
            key in self._held
            or key in self._recent
            or key in self._older
            or self._now() < self._all_until
        )

    async def hold(self, *keys: bytes) -> Hold:
        """Holds them; what is present when this returns stays until the hold is released."""
        hold = Hold(self, keys)
        try:
            await self._settle(keys)
        except BaseException:
            hold.release()
            raise
        return hold

    async def take(self, keys: Collection[bytes]) -> None:
        """Holds them, as above: until the session ends, or, outside of one, for ten minutes."""
        session = self._session()
        if session is not None:
            session.add(keys)
        else:
            self.turn()
            self._recent.update(keys)
            if len(self._recent) > MOST_KEYS:
                self._all_until = self._now() + 2 * GENERATION
                self._recent.clear()
        await self._settle(keys)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Holds what is found or written here, and in tasks that begin here, until its end."""
        session = Session(self)
        before = _sessions.get()
        _sessions.set((session, *before))
        try:
            yield
        finally:
            _sessions.set(before)
            session.release()

    def in_session(self) -> bool:
        return self._session() is not None

    def _session(self) -> Session | None:
        for session in _sessions.get():
            if session.holds is self:
                return session
        return None

    def turn(self) -> None:
        """Begins a new generation, if it is time: called now and then."""
        now = self._now()
        if now - self._turned >= GENERATION:
            # In this order: a thread that looks meanwhile finds in one of them what is in both.
            self._older = self._recent if now - self._turned < 2 * GENERATION else set()
            self._recent = set()
            self._turned = now

    def add(self, keys: Collection[bytes]) -> None:
        for key in keys:
            self._held[key] += 1

    def drop(self, keys: Collection[bytes]) -> None:
        for key in keys:
            if self._held[key] > 1:
                self._held[key] -= 1
            else:
                del self._held[key]

    async def _settle(self, keys: Collection[bytes]) -> None:
        while any(not freeing.isdisjoint(keys) for freeing in self._freeing if freeing):
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
