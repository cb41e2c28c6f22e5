"""Directories of another daemon: closures in one call, each Directory verified.

Over gRPC what is put is a closure, children first, with one root. Directories whose children are
with the peer already are sent alone first; where it wants to see the children, they are fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Final

from tvixstore.castore import EMPTY_DIGEST, ClosureReader, Digest, Directory
from tvixstore.directory import DirectoryPutter, DirectoryService
from tvixstore.directory.closure import ClosurePutter
from tvixstore.errors import CorruptData, Incomplete, InvalidData, Unavailable
from tvixstore.rpc.client.peer import Peer
from tvixstore.rpc.messages import GetDirectory
from tvixstore.rpc.methods import GET_DIRECTORY, PUT_DIRECTORY

# Directories of a closure read ahead of whoever reads it; asked for at a time, one by one.
_AHEAD: Final = 64
_AT_ONCE: Final = 16


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
        found: list[Directory | None] = []
        for begin in range(0, len(digests), _AT_ONCE):
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(self.get(digest))
                        for digest in digests[begin : begin + _AT_ONCE]
                    ]
            except ExceptionGroup as errors:
                # Those asked for together fail for one reason, if they fail.
                raise errors.exceptions[0] from None
            found += [task.result() for task in tasks]
        return found

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
        request = GetDirectory(root, recursive=True)
        replies = await self._peer.serve(GET_DIRECTORY, request, _AHEAD)
        if replies is None:
            return
        async with replies:
            while True:
                try:
                    directory = await anext(replies, None)
                except Unavailable as error:
                    if begun:
                        await self._tell_missing(root, reader, error)
                    raise
                if directory is None:
                    break
                begun = True
                try:
                    reader.feed(directory)
                except InvalidData as error:
                    raise CorruptData(f"{self._peer.name}: closure of {root}: {error}") from error
                yield directory
        if begun and (missing := reader.missing()):
            raise self._incomplete(missing[0], root)

    async def put_closure(self) -> DirectoryPutter:
        return ClosurePutter(self)

    async def _tell_missing(self, root: Digest, reader: ClosureReader, error: Unavailable) -> None:
        """Raises `Incomplete` if a closure broke off because the peer lacks the rest of it."""
        wanted = reader.missing()[:_AT_ONCE]
        for digest, directory in zip(wanted, await self.get_many(wanted), strict=True):
            if directory is None:
                raise self._incomplete(digest, root) from error

    def _incomplete(self, digest: Digest, root: Digest) -> Incomplete:
        return Incomplete(
            f"{self._peer.name}: Directory {digest} below {root} is missing", digest.raw
        )

    async def _put_root(self, root: Digest, given: dict[Digest, Directory]) -> None:
        closure = list(_post_order(root, given))
        try:
            await self._send(closure)
        except InvalidData:
            outside = {
                child.digest: None
                for each in closure
                for child in each.children
                if child.digest not in given
            }
            if not outside:
                raise
            fetched = await self._fetch(outside)
            if fetched is None:
                raise
            await self._send(list(_post_order(root, {**fetched, **given})))

    async def _fetch(self, roots: Iterable[Digest]) -> dict[Digest, Directory] | None:
        """Whole closures from the peer; `None` if it lacks one."""
        fetched: dict[Digest, Directory] = {}
        for root in roots:
            if root in fetched:
                continue
            async with aclosing(self.get_closure(root)) as closure:
                fetched.update({each.digest: each async for each in closure})
            if root not in fetched:
                return None
        return fetched

    async def _send(self, closure: Sequence[Directory]) -> None:
        await self._peer.settle(GET_DIRECTORY, GetDirectory(EMPTY_DIGEST))
        sent = await self._peer.send(PUT_DIRECTORY)
        try:
            for directory in closure:
                await sent.send(directory)
            digest = await sent.finish()
        finally:
            await sent.aclose()
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
