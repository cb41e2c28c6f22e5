"""Directories of another daemon: closures in one call, each Directory verified.

Over gRPC what is put is a closure, children first, with one root. What is below a Directory and not
given along with it is fetched from the peer first, to be sent back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Final

from tvixstore.castore import ClosureReader, Digest, Directory
from tvixstore.directory import DirectoryPutter, DirectoryService
from tvixstore.directory.closure import ClosurePutter
from tvixstore.errors import CorruptData, Incomplete, InvalidData, Unavailable
from tvixstore.log import Logger
from tvixstore.parallel import AT_ONCE, together
from tvixstore.rpc.client.peer import Peer
from tvixstore.rpc.codec import MAX_MESSAGE_BYTES
from tvixstore.rpc.messages import GetDirectory
from tvixstore.rpc.methods import GET_DIRECTORY, PUT_DIRECTORY

# Directories of a closure that are read ahead of whoever reads it.
_AHEAD: Final = 64

log = Logger("tvixstore.rpc.client.directories")


class GrpcDirectoryService(DirectoryService):
    """The Directories of `peer`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def __repr__(self) -> str:
        return repr(self._peer)

    async def get(self, digest: Digest) -> Directory | None:
        found = await self._peer.gather(GET_DIRECTORY, GetDirectory(digest), 1)
        if not found:
            return None
        if found[0].digest != digest:
            raise CorruptData(
                f"{self._peer.name}: what came for Directory {digest} is {found[0].digest}"
            )
        return found[0]

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        return await together(self.get, digests)

    async def put(self, directory: Directory) -> Digest:
        await self.put_many([directory])
        return directory.digest

    async def put_many(self, directories: Sequence[Directory]) -> None:
        given = {directory.digest: directory for directory in directories}
        below = {child.digest for each in given.values() for child in each.children}
        for digest in given:
            if digest not in below:
                await self._put_root(digest, given)

    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        reader = ClosureReader(root)
        begun = False
        async with aclosing(self._recursive(root)) as closure:
            try:
                async for directory in closure:
                    begun = True
                    self._feed(reader, directory)
                    yield directory
            except Unavailable as error:
                if not begun:
                    raise
                log.info("closure.broke_off", key=root, reason=error)
                whole = False
            else:
                whole = True
        # What broke off is gone on with, one by one: that also tells which one is missing.
        while begun and (missing := reader.missing()):
            if whole:
                raise self._incomplete(missing[0], root)
            wanted = missing[:AT_ONCE]
            for digest, found in zip(wanted, await self.get_many(wanted), strict=True):
                if found is None:
                    raise self._incomplete(digest, root)
                self._feed(reader, found)
                yield found

    async def put_closure(self) -> DirectoryPutter:
        return ClosurePutter(self)

    async def _recursive(self, root: Digest) -> AsyncGenerator[Directory, None]:
        request = GetDirectory(root, recursive=True)
        replies = await self._peer.serve(GET_DIRECTORY, request, _AHEAD)
        if replies is not None:
            async with replies:
                async for directory in replies:
                    yield directory

    def _feed(self, reader: ClosureReader, directory: Directory) -> None:
        try:
            reader.feed(directory)
        except InvalidData as error:
            raise CorruptData(f"{self._peer.name}: {error}") from error

    def _incomplete(self, digest: Digest, root: Digest) -> Incomplete:
        return Incomplete(
            f"{self._peer.name}: Directory {digest} below {root} is missing", digest.raw
        )

    async def _put_root(self, root: Digest, given: dict[Digest, Directory]) -> None:
        closure = list(_post_order(root, given))
        outside = [
            child.digest for each in closure for child in each.children if child.digest not in given
        ]
        if outside:
            closure = list(_post_order(root, {**await self._fetch(outside), **given}))
        await self._send(closure)

    async def _fetch(self, roots: Iterable[Digest]) -> dict[Digest, Directory]:
        """Whole closures from the peer; raises `InvalidData` if it lacks one."""
        fetched: dict[Digest, Directory] = {}
        for root in roots:
            if root in fetched:
                continue
            async with aclosing(self.get_closure(root)) as closure:
                fetched.update({each.digest: each async for each in closure})
            if root not in fetched:
                raise InvalidData(
                    f"{self._peer.name} takes whole closures only, "
                    f"and Directory {root} is neither given nor there"
                )
        return fetched

    async def _send(self, closure: Sequence[Directory]) -> None:
        for each in closure:
            if len(each.wire) > MAX_MESSAGE_BYTES:
                raise InvalidData(
                    f"{self._peer.name} takes messages of {MAX_MESSAGE_BYTES} bytes at most, "
                    f"and Directory {each.digest}, of {len(each.entries)} entries, has "
                    f"{len(each.wire)}"
                )
        digest = await self._peer.tell(PUT_DIRECTORY, closure, patient=True)
        if digest != closure[-1].digest:
            raise CorruptData(
                f"{self._peer.name} stored a closure of {closure[-1].digest} as {digest}"
            )


def _post_order(root: Digest, given: dict[Digest, Directory]) -> Iterable[Directory]:
    """Those of `given` that are below `root`, each once, after its children; `root` is last."""
    done: set[Digest] = set()
    stack: list[tuple[Digest, bool]] = [(root, False)]
    while stack:
        digest, entered = stack.pop()
        if entered:
            yield given[digest]
        elif digest in given and digest not in done:
            done.add(digest)
            stack.append((digest, True))
            stack.extend((child.digest, False) for child in given[digest].children)
