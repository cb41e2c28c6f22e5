"""Whether a path is what its path info says: its content is rendered, hashed, and held against the
NAR hash that was signed. That is the check that binds a root node to its signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvixstore.castore import Digest, Node
from tvixstore.errors import CorruptData, Incomplete, InvalidData, StoreError, Unavailable
from tvixstore.kv import Damage
from tvixstore.nar import NarIdentity
from tvixstore.nix import nixbase32
from tvixstore.pathinfo.audit import Kept
from tvixstore.upkeep.findings import Findings
from tvixstore.upkeep.holdings import Holdings
from tvixstore.upkeep.nars import identify

if TYPE_CHECKING:
    from tvixstore.tree import Content


class PathScrub:
    """Checks paths of `holdings`, one by one."""

    def __init__(self, findings: Findings, holdings: Holdings) -> None:
        self._findings = findings
        self._holdings = holdings
        self._content = holdings.audits.content() or holdings.beyond

    async def check(self, kept: Kept) -> None:
        """Reports what is wrong with that path, and repairs it if that is wanted."""
        path = kept.info.store_path
        try:
            reason = await self._trouble(kept)
            if reason is None or not await self._holdings.paths().is_still(kept):
                return
            # It may have been taken apart while it was read, or put together again.
            reason = await self._trouble(kept)
            if reason is None or not await self._holdings.paths().is_still(kept):
                return
        except Unavailable as error:
            await self._findings.add("path", str(path), str(error), "unread")
            return
        await self._settle(path.hash, kept.record, str(path), reason)

    async def damaged(self, damage: Damage) -> None:
        """Reports a path whose path info cannot be read, as `check` does."""
        key = nixbase32.encode(damage.key)
        await self._settle(damage.key, damage.row or b"", key, damage.reason)

    async def _settle(self, path_hash: bytes, record: bytes, key: str, reason: str) -> None:
        """Reports a path that is wrong; with repair, after it was dropped and fetched again."""
        if not self._findings.repair:
            await self._findings.add("path", key, reason, "found")
            return
        try:
            if not await self._holdings.paths().drop(path_hash, record):
                # Somebody put it anew.
                return
        except StoreError as error:
            await self._findings.add("path", key, f"{reason}; not dropped: {error}", "failed")
            return
        try:
            again = await self._holdings.root.get(path_hash)
        except StoreError as error:
            reason = f"{reason}; it could not be fetched again: {error}"
            await self._findings.add("path", key, reason, "failed")
            return
        if again is None:
            reason = f"{reason}; no substituter has it"
            await self._findings.add("path", key, reason, "lost")
            return
        await self._judge_again(path_hash, str(again.store_path), reason)

    async def _judge_again(self, path_hash: bytes, key: str, reason: str) -> None:
        found = await self._holdings.paths().get(path_hash)
        if not isinstance(found, Kept):
            reason = f"{reason}; it was fetched again and could not be kept"
            await self._findings.add("path", key, reason, "failed")
            return
        try:
            trouble = await self._trouble(found)
        except Unavailable as error:
            trouble = str(error)
        if trouble is None:
            await self._findings.add("path", key, reason, "refetched")
        else:
            reason = f"{reason}; fetched again, it is still wrong: {trouble}"
            await self._findings.add("path", key, reason, "failed")

    async def _trouble(self, kept: Kept) -> str | None:
        """What is wrong with its content. Raises `Unavailable` where nobody knows."""
        info = kept.info
        assert self._content is not None
        try:
            found = await self._identify(self._content, info.node)
        except Incomplete as error:
            if await self._is_beyond(error.digest):
                self._findings.summary.partial += 1
                return None
            return str(error)
        except (CorruptData, InvalidData) as error:
            return str(error)
        if found != NarIdentity(info.nar_size, info.nar_sha256):
            return (
                f"its content has a NAR with sha256 {found.sha256.hex()} of {found.size} bytes, "
                f"and not the one with {info.nar_sha256.hex()} of {info.nar_size} bytes"
            )
        await self._check_remembered(kept, found)
        return None

    async def _identify(self, content: Content, node: Node) -> NarIdentity:
        findings = self._findings
        pool = self._holdings.pools.background
        return await identify(content, node, pool, lambda size: findings.advance(0, size))

    async def _is_beyond(self, digest: bytes) -> bool:
        """Whether what is missing here is with a tier behind this store."""
        if (beyond := self._holdings.beyond) is None:
            return False
        wanted = Digest(digest)
        return await beyond.blobs.has(wanted) or await beyond.directories.get(wanted) is not None

    async def _check_remembered(self, kept: Kept, found: NarIdentity) -> None:
        """What is remembered of its NAR, without which a `verify` node would render it again."""
        known = await self._holdings.nars.known(kept.info.node)
        if known is None or known == found:
            return
        path = kept.info.store_path
        reason = f"what is remembered of its NAR is another one, with {known.sha256.hex()}"
        if self._findings.repair:
            await self._holdings.nars.keep(kept.info.node, found)
        await self._findings.add(
            "calculated", str(path), reason, "rewritten" if self._findings.repair else "found"
        )
