"""Whether all that is kept is right: from the chunks up to the paths, while everybody goes on.

Each phase is one pass over one table, a small page at a time, with the work in the background pool.
What looks wrong is looked at again before it is told, because stores change meanwhile. What is
dropped makes something above it incomplete, so phases go upwards; then every path is rendered and
hashed, which finds whatever the content of a path may lack.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from tvixstore.castore import Digest, DirectoryNode, FileNode
from tvixstore.errors import AbsentPath
from tvixstore.kv import Damage
from tvixstore.nix import StorePath
from tvixstore.pathinfo.audit import Kept
from tvixstore.upkeep.content import BlobScrub, DirectoryScrub
from tvixstore.upkeep.findings import Findings
from tvixstore.upkeep.holdings import Holdings
from tvixstore.upkeep.paths import PathScrub
from tvixstore.upkeep.rows import RowScrub
from tvixstore.upkeep.service import Outcome


class Scrub:
    """One check of `holdings`. Raises `Unavailable` where a table cannot be read at all."""

    def __init__(self, holdings: Holdings, findings: Findings) -> None:
        self._holdings = holdings
        self._findings = findings
        audits = holdings.audits
        self._blobs = None if audits.blobs is None else BlobScrub(findings, audits.blobs)
        self._directories = None
        if audits.directories is not None:
            self._directories = DirectoryScrub(findings, audits.directories, holdings)
        self._paths = PathScrub(findings, holdings)

    async def everything(self) -> None:
        if self._blobs is not None:
            await self._blobs.everything()
        if self._directories is not None:
            await self._directories.everything()
        await self._all_paths()
        if self._directories is not None:
            await self._directories.finish()
        await RowScrub(self._findings, self._holdings).everything()
        await self._accounts()

    async def only(self, paths: Sequence[StorePath]) -> None:
        """These paths, with everything that they are made of. Raises `AbsentPath`."""
        kept: list[Kept | Damage] = []
        for path in paths:
            found = await self._holdings.paths().get(path.hash)
            if found is None or (isinstance(found, Kept) and found.info.store_path != path):
                raise AbsentPath(f"{path} is not in {self._holdings.path}")
            kept.append(found)
        self._findings.begin("paths", len(kept))
        for each in kept:
            if isinstance(each, Kept):
                await self._sweep(each)
            await self._path(each)

    async def _all_paths(self) -> None:
        if (audit := self._holdings.audits.path_infos) is None:
            return
        self._findings.begin("paths", await audit.count())
        async with aclosing(audit.pages()) as pages:
            async for page in pages:
                for damage in page.damaged:
                    await self._path(damage)
                for kept in page.kept:
                    await self._path(kept)

    async def _path(self, found: Kept | Damage) -> None:
        if isinstance(found, Kept):
            await self._paths.check(found)
        else:
            await self._paths.damaged(found)
        self._findings.summary.paths += 1
        self._findings.advance(1)

    async def _sweep(self, kept: Kept) -> None:
        """Finds all damage in what a path is made of, not only the first that rendering meets."""
        ahead = [kept.info.node]
        seen: set[Digest] = set()
        while ahead:
            node = ahead.pop()
            if not isinstance(node, DirectoryNode | FileNode) or node.digest in seen:
                continue
            seen.add(node.digest)
            if isinstance(node, DirectoryNode) and self._directories is not None:
                ahead += await self._directories.one(node.digest)
            elif isinstance(node, FileNode) and self._blobs is not None:
                await self._blobs.one(node.digest)

    async def _accounts(self) -> None:
        """In the end: what was dropped, and what came again, was counted like anything else."""
        if (accounts := self._holdings.accounts) is None:
            return
        self._findings.begin("counts", None)
        wrong = await accounts.check()
        if wrong and self._findings.repair:
            await accounts.rebuild()
        for line in wrong:
            key, _, reason = line.partition(": ")
            outcome: Outcome = "rewritten" if self._findings.repair else "found"
            await self._findings.add("counts", key, reason, outcome)
