"""Pinning paths with all that they refer to, which is fetched if it is not here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tvixstore.castore import Node
from tvixstore.errors import AbsentPath, Incomplete, StoreError, Unavailable
from tvixstore.kv import PATH
from tvixstore.nar import render
from tvixstore.nix import StorePath
from tvixstore.pathinfo import PathInfo, Pin
from tvixstore.pathinfo.audit import Kept
from tvixstore.tree import Content
from tvixstore.upkeep.holdings import Holdings
from tvixstore.upkeep.service import Pinned, PinRequest

# Paths fetched at a time; upstreams have limits of their own.
_FETCHES: Final = 8
# Seconds that what was read here from a tier behind may take until it is on disk.
_KEPT_WITHIN: Final = 30.0


@dataclass
class _Closure:
    """Paths that are here, by hash, and those that are named and are not."""

    here: dict[bytes, PathInfo] = field(default_factory=dict)
    missing: dict[bytes, StorePath] = field(default_factory=dict)

    def pinned(self, pin: Pin, fetched: int = 0) -> Pinned:
        return Pinned(
            pin,
            len(self.here),
            sum(info.nar_size for info in self.here.values()),
            tuple(sorted(self.missing.values(), key=StorePath.order)),
            fetched,
        )


class Pinning:
    """The pins of one state directory."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings

    async def pin(self, request: PinRequest) -> Pinned | None:
        """See `Upkeep.pin`."""
        path, pins = request.store_path, self._holdings.pins
        fetched = await self._come(path, request.fetch)
        if fetched is None:
            return None
        was_pinned = await pins.has(path.hash)
        # Pinned before the rest comes, so that none of it goes while the others are on their way.
        pin = await pins.add(path, request.comment)
        try:
            closure = await self._held_closure(path)
            while request.fetch and closure.missing:
                fetched += await self._fetch_all(list(closure.missing.values()), path)
                closure = await self._held_closure(path)
            if request.fetch:
                await self._complete(closure)
        except BaseException:
            if not was_pinned:
                await pins.remove(path.hash)
            raise
        return closure.pinned(pin, fetched)

    async def unpin(self, store_path: StorePath) -> bool:
        """See `Upkeep.unpin`."""
        self._holdings.paths()
        return await self._holdings.pins.remove(store_path.hash)

    async def pins(self) -> AsyncGenerator[Pinned, None]:
        """See `Upkeep.pins`."""
        self._holdings.paths()
        async for pin in self._holdings.pins.list():
            yield (await self._closure(pin.store_path)).pinned(pin)

    async def _come(self, path: StorePath, fetch: bool) -> int | None:
        """How many paths, 0 or 1, had to be fetched for it to be here; `None` if it is nowhere."""
        if (info := await self._here(path)) is not None:
            return 0 if info.store_path == path else None
        if not fetch or (info := await self._holdings.root.get(path.hash)) is None:
            return None
        if info.store_path != path:
            return None
        if await self._here(path) is None:
            raise Unavailable(
                f"{path} was fetched and could not be kept in {self._holdings.path}: is it full?"
            )
        return 1

    async def _here(self, path: StorePath) -> PathInfo | None:
        found = await self._holdings.paths().get(path.hash)
        # A damaged one is dropped and replaced by whoever asks for it.
        return found.info if isinstance(found, Kept) else None

    async def _closure(self, root: StorePath) -> _Closure:
        closure = _Closure()
        ahead = [root]
        while ahead:
            path = ahead.pop()
            if path.hash in closure.here or path.hash in closure.missing:
                continue
            info = await self._here(path)
            if info is None:
                closure.missing[path.hash] = path
                continue
            closure.here[path.hash] = info
            ahead += info.references
        return closure

    async def _held_closure(self, root: StorePath) -> _Closure:
        """The closure; what is here of it stays.

        Whoever evicts looks at pins before he goes through all paths: for those that he has chosen
        by now the pin comes too late.
        """
        held: set[bytes] = set()
        while True:
            closure = await self._closure(root)
            new = [PATH + path_hash for path_hash in closure.here.keys() - held]
            if not new or self._holdings.holds is None:
                return closure
            await self._holdings.holds.take(new)
            held |= closure.here.keys()

    async def _fetch_all(self, paths: Sequence[StorePath], root: StorePath) -> int:
        """Fetches all of `paths`, some at a time; how many they were."""

        async def fetch(path: StorePath) -> None:
            if await self._come(path, fetch=True) is None:
                raise AbsentPath(f"{root} needs {path}, which nobody has: it is not pinned")

        for begin in range(0, len(paths), _FETCHES):
            some = paths[begin : begin + _FETCHES]
            # All of them end before this does.
            for outcome in await asyncio.gather(*map(fetch, some), return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
        return len(paths)

    async def _complete(self, closure: _Closure) -> None:
        """Where content may be with a tier behind this store: has it come here."""
        if (content := self._holdings.beyond) is None:
            return
        for info in closure.here.values():
            try:
                await _read(content, info.node)
                await self._kept(info)
            except StoreError as error:
                raise Unavailable(
                    f"the content of {info.store_path} could not be had: {error}"
                ) from error

    async def _kept(self, info: PathInfo) -> None:
        """Waits until what was read is here: it is kept behind the back of those who read it."""
        if (here := self._holdings.audits.content()) is None:
            return
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _KEPT_WITHIN
        pause = 0.01
        while True:
            try:
                return await _read(here, info.node)
            except Incomplete as error:
                if loop.time() >= give_up:
                    raise Unavailable(
                        f"it could not be kept in {self._holdings.path}: is it full? ({error})"
                    ) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)


async def _read(content: Content, node: Node) -> None:
    """All of it, for what that has come here."""
    async with render(content, node) as nar:
        async for _ in nar:
            pass
