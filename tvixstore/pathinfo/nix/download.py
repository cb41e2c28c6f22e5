"""Downloads one NAR into a spool: decompresses, hashes, resumes, and judges it at the end.

What arrives is handed to the CPU pool, where one hop decompresses a slice of it, hashes that and
writes it to the spool's file; only the shortest NARs are not worth the hop. A connection that
breaks is taken up again: at the compressed offset if the upstream can (same URL, same validator),
otherwise from the start, skipping what the spool has. The hash runs over what was spooled, so an
upstream that changed its mind is found out.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tvixstore.activity import Phase
from tvixstore.compression import Decoder, decoder
from tvixstore.errors import CorruptData, InvalidData, Unavailable, Unsupported
from tvixstore.log import Logger
from tvixstore.pathinfo.nix.upstream import Body, NarOrigin, Resume
from tvixstore.policy.tracing import cost, note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tvixstore.policy.limit import TokenBucket
    from tvixstore.policy.spool import Spool
    from tvixstore.pools import Pools

# How much one hop to the CPU pool puts out, at least, before readers hear of it.
SLICE = 1 << 20
# A NAR no longer than this is undone in the loop: the way to a thread and back takes as long.
IN_LOOP_BYTES = 32 << 10
# Of a NAR that is streamed before it is verified, so much at its end waits for the verdict.
HELD_BACK = 64 << 10
# No compression makes more of a NAR than this: beyond it is padding, which may be endless.
MOST_COMPRESSED = 2
MOST_OVERHEAD = 1 << 20
# After so much progress a broken connection is as good as new: its retries start over.
PROGRESS = 1 << 20
FIRST_DELAY = 0.1
# An upstream that wants to be left alone for longer than this is not waited for.
LONGEST_DELAY = 10.0
# After a failure, who reads and could read elsewhere waits so long for what trying again brings,
# and as much longer as another one would take, at so many bytes a second, to come this far.
GRACE = 1.0
CATCHING_UP = 20_000_000

log = Logger("tvixstore.pathinfo.nix.download")


class Gone(Exception):
    """The upstream described the NAR, and does not have it (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NarSource:
    """Where a NAR is, and what it has to be."""

    upstream: NarOrigin
    store_path: str
    url: str
    compression: str
    nar_sha256: bytes
    nar_size: int
    retries: int
    # What its bytes are paid from, as they come: all of an upstream's NARs share it.
    bucket: TokenBucket | None = None


@dataclass
class Download:
    """One NAR on its way into `spool`."""

    source: NarSource
    spool: Spool
    pools: Pools
    verify_ahead: int
    # Told when the spool's file cannot be written; the NAR passes through from then on.
    on_spool_failure: Callable[[OSError], None]
    # Told of what it does now, and why.
    on_phase: Callable[[Phase, str | None], None] = lambda phase, reason: None
    received: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    _skip: int = 0
    _compressed: int = 0
    _decoder: Decoder | None = None
    # Until the spool's readers hear of a failure.
    _grace: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Fetches all of it and checks it; raises `Gone` or a `StoreError`."""
        try:
            await self._fetch()
        finally:
            self._reassure()
        self._judge()

    async def _fetch(self) -> None:
        resume: Resume | None = None
        failures, mark = 0, 0
        while True:
            try:
                await self._attempt(resume)
                break
            except _Broken as broken:
                if self.received - mark >= PROGRESS:
                    failures, mark = 0, self.received
                failures += 1
                wanted = broken.error.retry_after or 0.0
                if failures > self.source.retries or wanted > LONGEST_DELAY:
                    raise broken.error from None
                self._worry(broken.error)
                resume = broken.resume
                note(
                    "download.retry", f"taken up at byte {self.received} of the NAR: {broken.error}"
                )
                log.debug(
                    "download.retry",
                    node=self.source.upstream.name,
                    key=self.source.store_path,
                    bytes=self.received,
                    reason=str(broken.error),
                )
                self.on_phase("pausing", str(broken.error))
                await asyncio.sleep(max(wanted, FIRST_DELAY * 2 ** (failures - 1)))

    def _worry(self, error: Unavailable) -> None:
        """Has the spool's readers hear of `error` soon, unless something comes before that."""
        if self._grace is None:
            # Who says when to come back says that nothing comes until then.
            delay = GRACE if error.retry_after is None else 0.0
            delay += self.received / CATCHING_UP
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(delay, self.spool.cast_doubt, error)

    def _reassure(self) -> None:
        """Something comes."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = self.spool.doubt = None

    @property
    def releasable(self) -> int:
        """How far readers may read before the NAR is verified."""
        size = self.source.nar_size
        fits = not self.spool.passing or size <= self.spool.memory
        if size <= self.verify_ahead and fits:
            return 0
        return max(0, min(self.received, size - HELD_BACK))

    async def _attempt(self, resume: Resume | None) -> None:
        """One connection. Raises `_Broken` with where to go on if it may be tried again."""
        self.on_phase("connecting", None)
        try:
            body = await self.source.upstream.open_nar(self.source.url, resume)
        except Unavailable as error:
            raise _Broken(error, resume) from error
        if body is None:
            raise Gone
        async with body:
            self.on_phase("downloading", None)
            if resume is None or body.offset == 0:
                self._begin(body)
            try:
                async for data in body:
                    self._reassure()
                    if self.source.bucket is not None:
                        await self.source.bucket.pay(len(data))
                    self._compressed += len(data)
                    cost(len(data))
                    if self._compressed > MOST_COMPRESSED * self.source.nar_size + MOST_OVERHEAD:
                        raise self._wrong("is compressed to far more bytes than it has")
                    await self._take(self._need_decoder().feed(data), len(data))
            except Unavailable as error:
                raise _Broken(error, self._resume_point(body)) from error
        try:
            self._need_decoder().finish()
        except (CorruptData, InvalidData) as error:
            raise self._wrong(f"is damaged: {error}") from error

    def _begin(self, body: Body) -> None:
        try:
            self._decoder = decoder(self.source.compression, body.encodings)
        except Unsupported as error:
            raise self._wrong(str(error)) from error
        self._compressed = 0
        self._skip = self.received

    def _need_decoder(self) -> Decoder:
        assert self._decoder is not None, "a body was read before its decoder was made"
        return self._decoder

    def _resume_point(self, body: Body) -> Resume | None:
        if body.validator is None or not self._compressed:
            return None
        return Resume(self._compressed, body.validator)

    async def _take(self, decoded: Iterator[bytes], size: int) -> None:
        decoded = self._undamaged(decoded)
        # A liar's few bytes can become one piece that is longer, but then they are quickly undone.
        here = size <= IN_LOOP_BYTES and self.source.nar_size <= IN_LOOP_BYTES
        more = True
        while more:
            if here:
                pieces, more, full = self._slice(decoded)
            else:
                pieces, more, full = await self.pools.cpu.run(self._slice, decoded)
            if full is not None:
                self.spool.pass_through()
                self.on_spool_failure(full)
            self.spool.publish(pieces, self.releasable)
            await self.spool.room()

    def _slice(self, decoded: Iterator[bytes]) -> tuple[list[bytes], bool, OSError | None]:
        """In a thread: the next pieces, whether there are more, and why the file failed if so."""
        pieces: list[bytes] = []
        amount, more = 0, False
        for piece in decoded:
            kept = self._keep(piece)
            if kept:
                pieces.append(kept)
                amount += len(kept)
            if amount >= SLICE:
                more = True
                break
        try:
            self.spool.store(pieces)
        except OSError as error:
            return pieces, more, error
        return pieces, more, None

    def _undamaged(self, decoded: Iterator[bytes]) -> Iterator[bytes]:
        """`decoded`, with what the decoder objects to put down to this NAR."""
        try:
            yield from decoded
        except (CorruptData, InvalidData) as error:
            raise self._wrong(f"is damaged: {error}") from error

    def _keep(self, piece: bytes) -> bytes:
        """What of `piece` the spool does not have yet, hashed and counted."""
        if self._skip:
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            piece = piece[skipped:]
        self.received += len(piece)
        if self.received > self.source.nar_size:
            raise self._wrong(f"is longer than the {self.source.nar_size} bytes announced")
        self._hash.update(piece)
        return piece

    def _judge(self) -> None:
        if self.received != self.source.nar_size or self._skip:
            raise self._wrong(
                f"is {self.received} bytes long instead of the {self.source.nar_size} announced"
            )
        if self._hash.digest() != self.source.nar_sha256:
            raise self._wrong(
                f"hashes to sha256 {self._hash.hexdigest()} instead of "
                f"{self.source.nar_sha256.hex()}"
            )

    def _wrong(self, what: str) -> CorruptData:
        return CorruptData(f"{self.source.upstream.name}: NAR of {self.source.store_path} {what}")


class _Broken(Exception):
    """A connection that may be tried again."""

    def __init__(self, error: Unavailable, resume: Resume | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.resume = resume
