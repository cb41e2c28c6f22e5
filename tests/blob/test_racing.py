from __future__ import annotations

import pytest

from tests.blob.conformance import noise
from tests.blob.scripted import Scripted, cut, read, read_until_it_breaks
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.blob import MemoryBlobService, RacingBlobService, ReadOnlyBlobService
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData, ReadOnly, Unavailable
from tvixstore.policy.hedge import Hedging

CHUNK = 100_000
DATA = noise(7 * CHUNK)
DIGEST = Digest.of(DATA)


def holder(chunk: int | None = None, **script: object) -> Scripted:
    service = Scripted(**script)  # type: ignore[arg-type]
    service.hold(DATA, chunk)
    return service


def race(*members: Scripted, hedge: float = 0.0) -> RacingBlobService:
    return RacingBlobService(members, "abcdef"[: len(members)], Hedging(hedge))


@virtual_clock
async def test_a_slow_member_does_not_slow_down_a_fast_one() -> None:
    slow, fast = holder(after=60.0), holder(after=0.2)
    service = race(slow, fast)
    assert await service.read(DIGEST) == DATA
    assert await service.has(DIGEST)
    assert now() < 1.0
    assert slow.open_streams == fast.open_streams == 0


@virtual_clock
async def test_a_hedge_delay_spares_the_second_member() -> None:
    first, second = holder(after=0.1), holder()
    assert await race(first, second, hedge=5.0).read(DIGEST) == DATA
    assert not second.calls


@virtual_clock
async def test_the_first_verified_chunk_wins_and_not_the_first_byte() -> None:
    liar, honest = holder(CHUNK), holder(CHUNK, after=1.0)
    first = Digest.of(cut(DATA, CHUNK)[0])
    liar.lies = {DIGEST: b"x" + DATA[1:], first: b"x" * CHUNK}
    service = race(liar, honest)
    assert await service.read(DIGEST) == DATA
    assert await service.read(first) == DATA[:CHUNK]


@virtual_clock
async def test_a_short_blob_is_hashed_before_it_wins() -> None:
    liar, honest = Scripted(), Scripted(after=1.0)
    digest = honest.hold(b"right")
    liar.lies[digest] = b"wrong"
    assert await race(liar, honest).read(digest, 5) == b"right"


@virtual_clock
async def test_absent_only_if_all_say_so() -> None:
    assert await race(Scripted(), Scripted(after=1.0)).open_read(DIGEST) is None
    assert not await race(Scripted(), Scripted()).has(DIGEST)
    assert await race(Scripted(), Scripted()).chunks(DIGEST) is None
    service = race(Scripted(), holder(fails=Unavailable("down")))
    for call in (service.open_read, service.has, service.read):
        with pytest.raises(Unavailable, match="b: down"):
            await call(DIGEST)


@virtual_clock
async def test_another_member_goes_on_where_the_winner_breaks() -> None:
    winner, other = holder(breaks_at=500_000), holder(after=1.0)
    service = race(winner, other)
    assert await service.read(DIGEST) == DATA
    assert await read(await service.open_read(DIGEST, 77, 600_000)) == DATA[77:][:600_000]
    # It is asked last for this blob, for a while.
    assert service._order(DIGEST) == [1, 0]
    assert winner.open_streams == other.open_streams == 0


@virtual_clock
async def test_a_stream_that_nobody_can_go_on_with_breaks_visibly() -> None:
    service = race(holder(breaks_at=500_000), holder(breaks_at=600_000), Scripted())
    came, error = await read_until_it_breaks(await service.open_read(DIGEST))
    assert came == DATA[: len(came)]
    assert str(error) == "connection reset"


@virtual_clock
async def test_a_winner_that_turns_out_wrong_breaks_the_stream() -> None:
    liar, honest = holder(CHUNK), holder(CHUNK, after=1.0)
    liar.lies[DIGEST] = DATA[:-1] + b"?"
    service = race(liar, honest)
    came, error = await read_until_it_breaks(await service.open_read(DIGEST))
    assert isinstance(error, CorruptData)
    assert came == DATA[: len(came)] and len(came) < len(DATA)
    # Whoever comes back goes to the other one first, with a hedge.
    service.hedge = Hedging(30.0)
    assert await service.read(DIGEST) == DATA


@virtual_clock
async def test_what_is_written_goes_to_the_first_member_that_takes_it() -> None:
    closed, open_ = ReadOnlyBlobService(MemoryBlobService()), MemoryBlobService()
    service = RacingBlobService([closed, open_], ["closed", "open"])
    digests = [await service.put(b"1"), *await service.put_many([b"2"])]
    async with await service.open_write() as writer:
        await writer.write(b"3")
        digests.append(await writer.close())
    assert open_.blobs.keys() >= set(digests)
    with pytest.raises(ReadOnly):
        await RacingBlobService([closed], ["closed"]).put(b"1")


@virtual_clock
async def test_the_winners_stream_may_be_left_at_once() -> None:
    members = [holder(CHUNK), holder(CHUNK, after=0.0)]
    stream = await race(*members).open_read(DIGEST)
    assert stream is not None
    await stream.aclose()
    assert [member.open_streams for member in members] == [0, 0]
