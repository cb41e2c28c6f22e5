"""A Nix binary cache as a path-info service: the substituter.

`describe` costs one narinfo, which is remembered on disk for its TTL; `open_nar` and `get` fill
(`fill.py`). A narinfo that cannot be trusted, or a NAR that turns out wrong, means that this member
failed for that path: it is set aside for a while, and nothing of what it said is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from tvixstore.activity import Waiting
from tvixstore.errors import (
    CorruptData,
    InvalidData,
    ReadOnly,
    StorageFull,
    StoreError,
    Unsupported,
    Untrusted,
)
from tvixstore.log import Logger
from tvixstore.nix import KeyRing, NarInfo, nixbase32
from tvixstore.pathinfo.answer_rows import ABSENT
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.nix.download import Gone, NarSource
from tvixstore.pathinfo.nix.fill import Fill
from tvixstore.pathinfo.nix.fills import Fills
from tvixstore.pathinfo.nix.job import Job
from tvixstore.pathinfo.nix.stream import NarStream
from tvixstore.pathinfo.nix.trust import Proof, judge
from tvixstore.pathinfo.remembered import RememberedAnswers
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.policy import hearsay
from tvixstore.policy.lru import Lru
from tvixstore.policy.single_flight import SingleFlight
from tvixstore.policy.tracing import note, spell
from tvixstore.policy.ttl import TtlMap

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tvixstore.pathinfo.nix.upstream import Upstream
    from tvixstore.policy.limit import TokenBucket
    from tvixstore.streams import ByteStream
    from tvixstore.tree import Content

Followed = TypeVar("Followed")

# How long an upstream that lied about a path is not asked for it again, in seconds.
SET_ASIDE = 60.0
# Characters of narinfos that are kept parsed, which takes several times as much memory.
PARSED = 4 << 20
# To read a longer one, with its hundreds of references, takes more than a millisecond.
READ_IN_LOOP = 8 << 10

log = Logger("tvixstore.pathinfo.nix")


@dataclass(frozen=True, slots=True)
class _Known:
    """A narinfo that was believed, and the text that it was read from."""

    text: str
    narinfo: NarInfo
    description: Description
    proof: Proof | None


@dataclass(eq=False, kw_only=True)
class NixPathInfoService(PathInfoService):
    """`upstream`, read through: what it serves is verified, and ingested into `content`."""

    upstream: Upstream
    content: Content
    fills: Fills
    remembered: RememberedAnswers
    # Names this upstream in `remembered`; at most 16 bytes.
    key: bytes
    # Who may sign; `None` trusts whatever the upstream says.
    keys: KeyRing | None
    narinfo_ttl: float = 3600.0
    negative_ttl: float = 60.0
    retries: int = 2
    bucket: TokenBucket | None = field(default=None, repr=False)
    _parsed: Lru[bytes, _Known] = field(default_factory=lambda: Lru(PARSED), repr=False)
    _aside: TtlMap[bytes, str] = field(default_factory=lambda: TtlMap(10_000), repr=False)
    _rejected: TtlMap[bytes, bool] = field(default_factory=lambda: TtlMap(10_000), repr=False)
    # Whoever asks after absences were forgotten joins no question of before that.
    _asking: SingleFlight[tuple[bytes, int], _Known | None] = field(
        default_factory=SingleFlight, repr=False
    )

    def __repr__(self) -> str:
        return f"nix {self.upstream!r}"

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        known = await self._find(path_hash)
        if known is None or nar_sha256 not in (None, known.description.nar_sha256):
            return None
        return known.description

    async def get(self, path_hash: bytes) -> PathInfo | None:
        known = await self._find(path_hash)
        if known is None:
            return None
        if not self.fills.admits(self._job(known)):
            raise StorageFull(
                f"{known.narinfo.store_path} cannot be fetched into the store: it takes no more; "
                "free some space or raise max_size"
            )
        node = await self._follow(known, Fill.content)
        return None if node is None else PathInfo.of(known.description, node)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        known = await self._find(description.store_path.hash)
        if known is None or not known.description.same_nar(description):
            return None
        # Whose keys vouch for it is kept; who trusts whatever it says has nothing to add to what
        # the caller knows, which may be signed.
        kept = description if self.keys is None else known.description

        async def open_stream(fill: Fill) -> ByteStream:
            fill.put_into(into, kept)
            return await NarStream.opened(self.fills, fill, offset, length)

        return await self._follow(known, open_stream)

    async def put(self, info: PathInfo) -> PathInfo:
        raise ReadOnly(f"{self.upstream.name} is a substituter: it takes no writes")

    def list(self) -> AsyncGenerator[PathInfo, None]:
        raise Unsupported(f"{self.upstream.name} is a binary cache: it cannot be listed")

    async def aclose(self) -> None:
        await self._asking.aclose()

    async def _find(self, path_hash: bytes) -> _Known | None:
        """What this upstream says of the path, from memory, from disk or by asking it."""
        hearsay.say(from_memory=True)
        if (reason := self._aside.get(path_hash)) is not None:
            left = self._aside.left(path_hash) or 0.0
            note("memory.rejected", f"not asked for this path for {spell(left)} more", left)
            raise CorruptData(reason)
        answer = await self.remembered.get(self.key, path_hash)
        if answer is ABSENT:
            return None
        if isinstance(answer, str):
            try:
                return await self._believe(path_hash, answer)
            except CorruptData:
                # The keys have changed since it was remembered; perhaps its signatures did too.
                self.remembered.forget(self.key, path_hash)
        hearsay.say(from_memory=False)
        try:
            moment = self.remembered.moment()
            return await self._asking.run((path_hash, moment), lambda: self._ask(path_hash, moment))
        except CorruptData:
            # One bad path that a client asks for again and again is one failure, not many.
            hearsay.say(from_memory=self._rejected.get(path_hash) is not None)
            self._rejected.put(path_hash, True, SET_ASIDE)
            raise

    async def _ask(self, path_hash: bytes, moment: int) -> _Known | None:
        with Waiting("lookup", nixbase32.encode(path_hash), self.upstream.name) as asked:
            text = await self.upstream.narinfo(path_hash)
            await self.upstream.check_store_dir()
            if text is None:
                asked.absent()
        if text is None:
            self.remembered.remember_absent(self.key, path_hash, self.negative_ttl, moment)
            return None
        known = await self._believe(path_hash, text)
        self.remembered.remember(self.key, path_hash, text, self.narinfo_ttl)
        return known

    async def _believe(self, path_hash: bytes, text: str) -> _Known:
        """The narinfo in `text`, if it parses, is of that path and can be trusted."""
        known = self._parsed.get(path_hash)
        if known is not None and known.text == text:
            return known
        if len(text) <= READ_IN_LOOP:
            known = self._read(path_hash, text)
        else:
            known = await self.fills.pools.cpu.run(self._read, path_hash, text)
        self._parsed.put(path_hash, known, len(text))
        return known

    def _read(self, path_hash: bytes, text: str) -> _Known:
        try:
            narinfo = NarInfo.parse(text)
        except InvalidData as error:
            digits = nixbase32.encode(path_hash)
            raise CorruptData(f"{self.upstream.name}: {digits}.narinfo: {error}") from error
        if narinfo.store_path.hash != path_hash:
            digits = nixbase32.encode(path_hash)
            raise CorruptData(
                f"{self.upstream.name}: {digits}.narinfo is of another path, {narinfo.store_path}"
            )
        try:
            proof = judge(narinfo, self.keys)
        except Untrusted as error:
            raise Untrusted(f"{self.upstream.name}: {error}") from error
        return _Known(text, narinfo, describe(narinfo), proof)

    def _job(self, known: _Known) -> Job:
        narinfo = known.narinfo
        source = NarSource(
            upstream=self.upstream,
            store_path=str(narinfo.store_path),
            url=narinfo.url,
            compression=narinfo.compression,
            nar_sha256=narinfo.nar_sha256,
            nar_size=narinfo.nar_size,
            retries=self.retries,
            bucket=self.bucket,
        )
        return Job(
            source=source,
            content=self.content,
            proof=known.proof,
            on_failure=lambda error: self._failed(narinfo.store_path.hash, error),
        )

    async def _follow(
        self, known: _Known, follow: Callable[[Fill], Awaitable[Followed]]
    ) -> Followed | None:
        """Follows the fill of that NAR, one under way if there is; `None` if the NAR is gone."""
        hearsay.say(from_memory=False)
        return await self.fills.follow(self._job(known), follow)

    def _failed(self, path_hash: bytes, error: StoreError | Gone) -> None:
        """Draws the consequence of a fill that failed."""
        self._parsed.discard(path_hash)
        if isinstance(error, Gone):
            self.remembered.remember(self.key, path_hash, None, self.negative_ttl)
        elif isinstance(error, CorruptData):
            self.remembered.forget(self.key, path_hash)
            self._aside.put(
                path_hash, f"{error} (not asked again for {SET_ASIDE:.0f} s)", SET_ASIDE
            )


def describe(narinfo: NarInfo) -> Description:
    """What `narinfo` says of its path."""
    return Description(
        store_path=narinfo.store_path,
        nar_sha256=narinfo.nar_sha256,
        nar_size=narinfo.nar_size,
        references=narinfo.references,
        signatures=narinfo.signatures,
        deriver=narinfo.deriver,
        ca=narinfo.ca,
    )
