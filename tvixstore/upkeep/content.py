"""Whether chunks, blobs and Directories are right, each by itself, and have what they are made of.

A Directory that lacks a child is looked at again in the end: until then a fill under way may have
brought the child, or a path that was fetched again. Only where all content is meant to be in this
store it is wrong: a cache in front of another store has Directories without their children.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final

from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode, Node
from tvixstore.errors import CorruptData
from tvixstore.kv import DIRECTORY, Damage

if TYPE_CHECKING:
    from tvixstore.blob.audit import BlobAudit, StrayFile
    from tvixstore.directory.audit import DirectoryAudit
    from tvixstore.upkeep.findings import Findings
    from tvixstore.upkeep.holdings import Holdings
    from tvixstore.upkeep.service import Outcome

# Directories without a child of theirs that are kept in mind until the end.
_DANGLING: Final = 10_000
# Passes over all Directories in which those above dropped ones are dropped: trees are no deeper.
_PASSES: Final = 300


class BlobScrub:
    """Checks what `audit` goes through."""

    def __init__(self, findings: Findings, audit: BlobAudit) -> None:
        self._findings = findings
        self._audit = audit

    async def everything(self) -> None:
        await self._chunks()
        await self._strays()
        await self._lists()

    async def one(self, digest: Digest) -> None:
        """That blob, with its chunks."""
        try:
            entries = await self._audit.entries(digest.raw) or [(digest.raw, 0)]
        except CorruptData:
            # Found below.
            entries = []
        for chunk in dict.fromkeys(chunk for chunk, _ in entries):
            if (damage := await self._audit.check_chunk(chunk)) is not None:
                await self._settle_chunk(damage)
        if (damage := await self._audit.check_list(digest.raw)) is not None:
            await self._settle_list(damage)

    async def _chunks(self) -> None:
        self._findings.begin("chunks", await self._audit.chunk_count())
        async with aclosing(self._audit.chunks()) as pages:
            async for page in pages:
                for damage in page.damaged:
                    await self._settle_chunk(damage)
                self._findings.summary.chunks += page.done
                self._findings.advance(page.done, page.size)

    async def _strays(self) -> None:
        self._findings.begin("files", 256)
        found: list[StrayFile] = []
        async with aclosing(self._audit.strays()) as folders:
            async for strays in folders:
                found += strays
                self._findings.advance(1)
        for stray in found:
            if not stray.ours:
                reason = "this is no chunk's file, and left alone"
                await self._findings.add("stray", stray.path, reason, "found")
            # A while ago it may have been on its way in, or out.
            elif await self._audit.is_stray(stray):
                removed = self._findings.repair and await self._audit.remove_stray(stray)
                reason = "no entry of the index is about this file"
                outcome: Outcome = "removed" if removed else "found"
                await self._findings.add("stray", stray.path, reason, outcome)

    async def _lists(self) -> None:
        self._findings.begin("blobs", await self._audit.list_count())
        async with aclosing(self._audit.lists()) as pages:
            async for page in pages:
                for damage in page.damaged:
                    await self._settle_list(damage)
                self._findings.summary.blobs += page.done
                self._findings.advance(page.done, page.size)

    async def _settle_chunk(self, damage: Damage) -> None:
        await self._findings.settle("chunk", damage, partial(self._audit.drop_chunk, damage))

    async def _settle_list(self, damage: Damage) -> None:
        await self._findings.settle("blob", damage, partial(self._audit.drop_list, damage))


class DirectoryScrub:
    """Checks the Directories of `holdings`, and whether they have what is meant to be here too."""

    def __init__(self, findings: Findings, audit: DirectoryAudit, holdings: Holdings) -> None:
        self._findings = findings
        self._audit = audit
        self._blobs = holdings.audits.blobs
        self._closed = holdings.closed
        self._holds = holdings.holds
        self._dangling: dict[Digest, bytes] = {}

    async def everything(self) -> None:
        """All but those that lack a child: `finish` judges them."""
        self._findings.begin("directories", await self._audit.count())
        async with aclosing(self._audit.pages()) as pages:
            async for page in pages:
                for damage in page.damaged:
                    await self._settle(damage)
                for directory in page.directories:
                    await self._keep_if_dangling(directory)
                self._findings.summary.directories += page.done
                self._findings.advance(page.done, page.size)

    async def one(self, digest: Digest) -> Sequence[Node]:
        """That Directory; the nodes in it, if it can be read."""
        if (damage := await self._audit.check(digest)) is not None:
            await self._settle(damage)
            return ()
        (directory,) = await self._audit.get_many([digest])
        return () if directory is None else [node for _, node in directory]

    async def finish(self) -> None:
        """By now whatever could be fetched again is here."""
        dropped = await self._settle_dangling()
        passes = 0
        while dropped and passes < _PASSES:
            # Now those dangle that had one of them for a child.
            passes += 1
            self._findings.begin("directories again", await self._audit.count())
            async with aclosing(self._audit.pages()) as pages:
                async for page in pages:
                    for directory in page.directories:
                        await self._keep_if_dangling(directory)
                    self._findings.advance(page.done, page.size)
            dropped = await self._settle_dangling()

    async def _keep_if_dangling(self, directory: Directory) -> None:
        if not self._closed or await self._lacks(directory) is None:
            return
        if len(self._dangling) >= _DANGLING:
            await self._settle_dangling()
        self._dangling[directory.digest] = directory.wire

    async def _settle_dangling(self) -> bool:
        """Judges those that were kept; whether any was dropped."""
        dropped = False
        while self._dangling:
            digest, wire = self._dangling.popitem()
            reason = await self._still_lacks(digest)
            if reason is None or self._is_in_use(digest):
                continue
            # Taken apart meanwhile, perhaps: a parent goes before its children.
            if (await self._audit.present([digest]))[0]:
                dropped |= await self._settle(Damage(digest.raw, reason, wire))
        return dropped

    def _is_in_use(self, digest: Digest) -> bool:
        """Whether somebody has just written it, who may be about to write its children."""
        return self._holds is not None and self._holds.is_held(DIRECTORY + digest.raw)

    async def _still_lacks(self, digest: Digest) -> str | None:
        try:
            (directory,) = await self._audit.get_many([digest])
        except CorruptData:
            # Found by itself.
            return None
        return None if directory is None else await self._lacks(directory)

    async def _lacks(self, directory: Directory) -> str | None:
        """What is wrong with the children of a Directory, if anything is."""
        below = [node.digest for _, node in directory if isinstance(node, DirectoryNode)]
        for child, present in zip(below, await self._audit.present(below), strict=True):
            if not present:
                return f"it lacks its child, Directory {child.raw.hex()}"
        if self._blobs is None:
            return None
        files = [node for _, node in directory if isinstance(node, FileNode)]
        sizes = await self._blobs.sizes([node.digest for node in files])
        for node, size in zip(files, sizes, strict=True):
            if size is None:
                return f"it lacks its file's blob {node.digest.raw.hex()}"
            if size != node.size:
                return f"it says {node.size} bytes of blob {node.digest.raw.hex()} of {size}"
        return None

    async def _settle(self, damage: Damage) -> bool:
        drop = partial(self._audit.drop, Digest(damage.key), damage.row or b"")
        return await self._findings.settle("directory", damage, drop)
