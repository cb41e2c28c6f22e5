"""The substituter over an upstream that does what it is told: trust, fills, resuming, failing."""

from __future__ import annotations

import asyncio
import hashlib
import lzma
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pathinfo.nix.fake_upstream import Attempt, FakeUpstream, drain
from tests.pathinfo.nix.house import (
    KIB,
    LARGE,
    MIB,
    SMALL,
    House,
    described,
    house_in,
    narinfo,
    opened_nar,
    settled,
    turns,
)
from tests.pathinfo.samples import STRANGER, nar_of, store_path
from tvixstore.blob import MemoryBlobService
from tvixstore.errors import CorruptData, StorageFull, StoreError, Unavailable
from tvixstore.nix import ContentAddress, NarInfo, NixHash
from tvixstore.pathinfo import BreakerPathInfoService
from tvixstore.pathinfo.nix import fill, substituter
from tvixstore.pathinfo.nix.fills import Fills
from tvixstore.policy.breaker import Breaker
from tvixstore.tree import Content

# Describing.


async def test_a_signed_narinfo_is_asked_for_once(house: House) -> None:
    info = narinfo(SMALL)
    upstream = FakeUpstream(narinfos={info.store_path.hash: str(info)})
    service = house.service(upstream)
    for _ in range(3):
        found = await service.describe(info.store_path.hash)
        assert found is not None
        assert (found.nar_sha256, found.signatures) == (info.nar_sha256, info.signatures)
    assert len(upstream.asked) == 1


async def test_askers_at_the_same_time_share_one_request(house: House) -> None:
    info = narinfo(SMALL)
    upstream = FakeUpstream(narinfos={info.store_path.hash: str(info)})
    service = house.service(upstream)
    found = await asyncio.gather(*(service.describe(info.store_path.hash) for _ in range(20)))
    assert len(upstream.asked) == 1
    assert None not in found


async def test_absent_is_remembered_and_unknown_is_not(house: House) -> None:
    absent, unknown = store_path("absent").hash, store_path("unknown").hash
    upstream = FakeUpstream(narinfos={unknown: Unavailable("down")})
    service = house.service(upstream)
    for _ in range(2):
        assert await service.describe(absent) is None
        with pytest.raises(Unavailable):
            await service.describe(unknown)
    assert upstream.asked == [absent, unknown, unknown]


async def test_another_nar_of_the_path_is_absent_when_one_is_asked_for(house: House) -> None:
    info = narinfo(SMALL)
    service = house.service(FakeUpstream(narinfos={info.store_path.hash: str(info)}))
    assert await service.describe(info.store_path.hash, info.nar_sha256) is not None
    assert await service.describe(info.store_path.hash, bytes(32)) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("<html>blocked</html>", id="html"),
        pytest.param("", id="empty"),
        pytest.param(str(narinfo(SMALL, name="other")), id="another path"),
        pytest.param(str(narinfo(SMALL, signer=None)), id="unsigned"),
        pytest.param(str(narinfo(SMALL, signer=STRANGER)), id="a stranger's signature"),
        pytest.param(
            str(replace(narinfo(SMALL), nar_size=len(SMALL) + 1)), id="a size that is not signed"
        ),
    ],
)
async def test_what_cannot_be_believed_is_rejected_and_forgotten(house: House, text: str) -> None:
    path_hash = narinfo(SMALL).store_path.hash
    upstream = FakeUpstream(narinfos={path_hash: text})
    service = house.service(upstream)
    for _ in range(2):
        with pytest.raises(CorruptData, match="fake"):
            await service.describe(path_hash)
    assert len(upstream.asked) == 2
    assert await house.remembered.get(service.key, path_hash) is None


async def test_without_keys_everything_is_believed(house: House) -> None:
    info = narinfo(SMALL, signer=None)
    service = house.service(FakeUpstream(narinfos={info.store_path.hash: str(info)}), keys=None)
    assert await service.describe(info.store_path.hash) is not None


async def test_keys_that_changed_since_are_heeded(house: House) -> None:
    info = narinfo(SMALL, signer=STRANGER)
    upstream = FakeUpstream(narinfos={info.store_path.hash: str(info)})
    assert await house.service(upstream, keys=None).describe(info.store_path.hash) is not None
    with pytest.raises(CorruptData):
        await house.service(upstream).describe(info.store_path.hash)


async def test_only_what_the_upstream_says_now_counts_for_its_breaker(house: House) -> None:
    info, liar = narinfo(SMALL), store_path("liar").hash
    upstream = FakeUpstream(narinfos={info.store_path.hash: str(info), liar: "junk"})
    breaker = Breaker(failures=2)
    service = BreakerPathInfoService(house.service(upstream), breaker)
    for _ in range(5):
        with pytest.raises(CorruptData):
            await service.describe(liar)
    assert not breaker.is_open, "one bad path, asked for again and again, is one failure"
    assert await service.describe(info.store_path.hash) is not None
    for name in ("a", "b"):
        upstream.narinfos[store_path(name).hash] = Unavailable("down")
        with pytest.raises(Unavailable):
            await service.describe(store_path(name).hash)
        if name == "a":
            assert await service.describe(info.store_path.hash) is not None
    assert breaker.is_open, "what is remembered is no sign of life"


# Content-addressed paths without a signature.


def addressed(nar: bytes, method: str, algorithm: str, digest: bytes) -> NarInfo:
    ca = ContentAddress(method, NixHash(algorithm, digest))  # type: ignore[arg-type]
    info = narinfo(nar, signer=None)
    return replace(info, store_path=ca.store_path("thing"), ca=ca)


FLAT = nar_of(b"hello\n")
ADDRESSED = {
    "recursive sha256": addressed(SMALL, "recursive", "sha256", hashlib.sha256(SMALL).digest()),
    "recursive sha1": addressed(SMALL, "recursive", "sha1", hashlib.sha1(SMALL).digest()),
    "flat": addressed(FLAT, "flat", "sha256", hashlib.sha256(b"hello\n").digest()),
    "text": addressed(FLAT, "text", "sha256", hashlib.sha256(b"hello\n").digest()),
}


@pytest.mark.parametrize("kind", ADDRESSED)
async def test_a_content_address_stands_in_for_a_signature(house: House, kind: str) -> None:
    info = ADDRESSED[kind]
    nar = FLAT if kind in ("flat", "text") else SMALL
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=nar))
    service = house.service(upstream)
    found = await service.get(info.store_path.hash)
    assert found is not None
    assert found.ca == info.ca


@pytest.mark.parametrize("kind", ["recursive sha1", "flat", "text"])
async def test_content_that_does_not_hash_to_its_address_is_rejected(
    house: House, kind: str
) -> None:
    lie = nar_of(b"something else")
    info = replace(
        ADDRESSED[kind], nar_sha256=hashlib.sha256(lie).digest(), nar_size=len(lie), url="nar/lie"
    )
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=lie))
    service = house.service(upstream)
    description = await service.describe(info.store_path.hash)
    assert description is not None, "the lie is only in the content"
    with pytest.raises(CorruptData, match="does not hash to its CA"):
        await service.open_nar(description, into=house.near)
    assert house.is_empty


async def test_an_address_that_is_not_the_paths_is_rejected(house: House) -> None:
    info = replace(ADDRESSED["flat"], store_path=store_path("thing"))
    service = house.service(FakeUpstream(narinfos={info.store_path.hash: str(info)}))
    with pytest.raises(CorruptData, match="no trusted signature"):
        await service.describe(info.store_path.hash)


# Filling.


@pytest.mark.parametrize("nar", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("compression", ["none", "xz"])
async def test_a_nar_streams_through_and_is_kept(
    house: House, nar: bytes, compression: str
) -> None:
    info = narinfo(nar, compression=compression)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=lzma.compress(nar) if compression == "xz" else nar))
    service = house.service(upstream)
    description = await described(service, info)
    stream = await opened_nar(service, description, into=house.near)
    assert await stream.read_all() == nar
    await settled(house)
    kept = await house.near.describe(info.store_path.hash)
    assert kept is not None
    near = await house.near.open_nar(kept)
    assert near is not None
    assert await near.read_all() == nar
    assert house.outcomes() == {"done": 1}
    assert all(body.closed for body in upstream.bodies)


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (1000, None), (2 * MIB, 5000), (9e9, 1)])
async def test_a_part_of_a_cold_nar(house: House, offset: float, length: int | None) -> None:
    info = narinfo(LARGE)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=LARGE))
    service = house.service(upstream)
    description = await described(service, info)
    start = int(offset)
    stream = await opened_nar(service, description, start, length)
    end = len(LARGE) if length is None else start + length
    assert await stream.read_all() == LARGE[start:end]
    await settled(house)


async def test_many_readers_and_a_getter_download_once(house: House) -> None:
    info = narinfo(LARGE)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=LARGE))
    service = house.service(upstream)
    description = await described(service, info)

    async def read() -> bytes:
        stream = await opened_nar(service, description, into=house.near)
        return await stream.read_all()

    *bodies, got = await asyncio.gather(
        *(read() for _ in range(5)), service.get(info.store_path.hash)
    )
    assert bodies == [LARGE] * 5
    assert got is not None
    assert len(upstream.opened) == 1


async def test_a_second_upstream_joins_the_download_of_the_first(house: House) -> None:
    info = narinfo(LARGE)
    gate = asyncio.Event()
    first, second = FakeUpstream(name="first"), FakeUpstream(name="second")
    first.add(info, Attempt(body=LARGE, gate=gate, gate_at=2 * MIB))
    second.add(info, Attempt(body=LARGE))
    services = [house.service(first), house.service(second)]
    description = await services[0].describe(info.store_path.hash)
    assert description is not None
    streams = [await service.open_nar(description) for service in services]
    gate.set()
    for stream in streams:
        assert stream is not None
        assert await stream.read_all() == LARGE
    assert (len(first.opened), len(second.opened)) == (1, 0)
    await settled(house)


async def test_the_first_byte_of_a_large_nar_does_not_wait_for_the_rest(house: House) -> None:
    info = narinfo(LARGE)
    gate = asyncio.Event()
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=LARGE, gate=gate, gate_at=64 * KIB))
    service = house.service(upstream)
    description = await described(service, info)
    stream = await opened_nar(service, description)
    async with stream:
        assert LARGE.startswith(await anext(stream))
        gate.set()


async def test_a_download_that_breaks_is_resumed_where_it_was(house: House) -> None:
    info = narinfo(LARGE)
    upstream = FakeUpstream()
    upstream.add(
        info,
        Attempt(body=LARGE, breaks_at=1_000_000, error=Unavailable("reset")),
        Attempt(body=LARGE),
    )
    found = await house.service(upstream).get(info.store_path.hash)
    assert found is not None
    resumes = [resume for _, resume in upstream.opened]
    assert resumes[0] is None
    assert resumes[1] is not None
    assert (resumes[1].offset, resumes[1].validator) == (1_000_000, '"v1"')


@pytest.mark.parametrize(
    "second",
    [Attempt(body=LARGE, ignores_resume=True), Attempt(body=LARGE, validator=None)],
    ids=["from the start", "resumed"],
)
@pytest.mark.parametrize("validator", ['"v1"', None])
async def test_a_download_that_cannot_be_resumed_starts_again_and_skips(
    house: House, second: Attempt, validator: str | None
) -> None:
    info = narinfo(LARGE)
    upstream = FakeUpstream()
    broken = Attempt(
        body=LARGE, breaks_at=1_000_000, error=Unavailable("reset"), validator=validator
    )
    upstream.add(info, broken, second)
    service = house.service(upstream)
    description = await described(service, info)
    stream = await opened_nar(service, description)
    assert await stream.read_all() == LARGE
    await settled(house)


async def test_an_upstream_that_keeps_breaking_is_given_up(house: House) -> None:
    info = narinfo(SMALL)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=SMALL, breaks_at=10, error=Unavailable("reset")))
    with pytest.raises(Unavailable, match="reset"):
        await house.service(upstream, retries=2).get(info.store_path.hash)
    assert len(upstream.opened) == 3
    assert house.is_empty
    assert house.outcomes() == {"failed": 1}


async def test_who_waits_for_a_slow_upstream_takes_nobody_elses_place(house: House) -> None:
    house.fills = Fills(house.directory, house.pools, house.metrics, max_downloads=2)
    gate = asyncio.Event()
    slow, other = FakeUpstream(name="slow"), FakeUpstream(name="other")
    slow.max_downloads = 1
    infos = [narinfo(nar_of(name.encode()), name=name) for name in ("a", "b", "c", "d")]
    for info in infos[:3]:
        body = nar_of(info.store_path.name.encode())
        slow.add(info, Attempt(body=body, gate=gate, gate_at=10))
    other.add(infos[3], Attempt(body=nar_of(b"d")))
    slowly = house.service(slow)
    waiting = [asyncio.create_task(slowly.get(info.store_path.hash)) for info in infos[:3]]
    await turns()
    assert len(slow.opened) == 1
    assert await house.service(other).get(infos[3].store_path.hash) is not None
    gate.set()
    assert None not in await asyncio.gather(*waiting)


async def test_a_trusting_member_keeps_the_signatures_that_the_caller_knows(house: House) -> None:
    signed, unsigned = narinfo(SMALL), narinfo(SMALL, signer=None)
    trusted, trusting = FakeUpstream(name="trusted"), FakeUpstream(name="trusting")
    trusted.add(signed, Unavailable("down"))
    trusting.add(unsigned, Attempt(body=SMALL))
    description = await house.service(trusted).describe(signed.store_path.hash)
    assert description is not None
    stream = await house.service(trusting, keys=None).open_nar(description, into=house.near)
    assert stream is not None
    assert await stream.read_all() == SMALL
    await settled(house)
    assert house.near.infos[signed.store_path.hash].signatures == signed.signatures


# Lies.

FLIPPED = SMALL[:5000] + bytes([SMALL[5000] ^ 1]) + SMALL[5001:]
LIES = {
    "wrong hash": Attempt(body=FLIPPED),
    "too short": Attempt(body=SMALL[:-8]),
    "too long": Attempt(body=SMALL + bytes(8)),
    "empty": Attempt(body=b""),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_small_lie_is_found_before_its_first_byte(house: House, lie: str) -> None:
    info = narinfo(SMALL)
    upstream = FakeUpstream()
    upstream.add(info, LIES[lie])
    service = house.service(upstream)
    description = await described(service, info)
    with pytest.raises(CorruptData, match="fake"):
        await service.open_nar(description, into=house.near)
    with pytest.raises(CorruptData, match="not asked again"):
        await service.describe(info.store_path.hash)
    assert house.is_empty


async def test_of_a_large_lie_the_end_never_comes(house: House) -> None:
    info = narinfo(LARGE)
    lie = LARGE[:-100] + bytes(100)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=lie))
    service = house.service(upstream)
    description = await described(service, info)
    stream = await opened_nar(service, description, into=house.near)
    got = b""
    with pytest.raises(CorruptData):
        async for part in stream:
            got += part
    await stream.aclose()
    assert len(got) < len(LARGE) - 100
    await settled(house)
    assert house.is_empty


@pytest.mark.parametrize("compression", ["xz", "zstd", "bzip2", "no such thing"])
async def test_what_is_not_compressed_as_it_says_is_a_lie(house: House, compression: str) -> None:
    info = narinfo(SMALL, compression=compression)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=SMALL))
    with pytest.raises(CorruptData, match="fake"):
        await house.service(upstream).get(info.store_path.hash)
    assert house.is_empty


async def test_a_bomb_is_stopped_at_the_size_announced(house: House) -> None:
    info = replace(narinfo(SMALL), compression="xz")
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=lzma.compress(bytes(200 * MIB), preset=0)))
    with pytest.raises(CorruptData, match="longer than"):
        await house.service(upstream).get(info.store_path.hash)
    assert house.is_empty


async def test_endless_padding_is_stopped(house: House) -> None:
    info = replace(narinfo(SMALL), compression="xz")
    upstream = FakeUpstream()
    padded = Attempt(body=lzma.compress(SMALL) + bytes(64 * MIB))
    upstream.add(info, padded)
    with pytest.raises(CorruptData, match="far more bytes"):
        await house.service(upstream).get(info.store_path.hash)
    assert upstream.bodies[0]._position < 4 * MIB
    assert house.is_empty


async def test_a_true_hash_over_what_is_no_nar_leaves_no_path(house: House) -> None:
    junk = b"this is no archive" * 100
    info = narinfo(junk)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=junk))
    with pytest.raises(CorruptData, match="cannot be unpacked"):
        await house.service(upstream).get(info.store_path.hash)
    assert house.is_empty


async def test_a_nar_that_is_gone_makes_the_path_absent(house: House) -> None:
    info = narinfo(SMALL)
    upstream = FakeUpstream()
    upstream.add(info, None)
    service = house.service(upstream)
    description = await described(service, info)
    assert await service.open_nar(description) is None
    assert await service.describe(info.store_path.hash) is None
    assert await service.get(info.store_path.hash) is None
    assert len(upstream.asked) == 1


async def test_a_nar_that_is_gone_from_one_comes_from_another(house: House) -> None:
    info = narinfo(SMALL)
    gate = asyncio.Event()
    failing, healthy = FakeUpstream(name="failing"), FakeUpstream(name="healthy")
    broken = Attempt(body=SMALL, gate=gate, gate_at=10, breaks_at=10, error=Unavailable("reset"))
    failing.add(info, broken)
    healthy.add(info, Attempt(body=SMALL))
    first, second = house.service(failing, retries=0), house.service(healthy)
    leader = asyncio.create_task(first.get(info.store_path.hash))
    await turns()
    assert failing.opened
    follower = asyncio.create_task(second.get(info.store_path.hash))
    await turns()
    gate.set()
    with pytest.raises(Unavailable):
        await leader
    assert await follower is not None


# Leaving.


async def opened(
    house: House, nar: bytes, gate: asyncio.Event, gate_at: int
) -> tuple[FakeUpstream, Callable[[], Awaitable[None]]]:
    """Starts a download that waits at `gate`, and says how to leave it."""
    info = narinfo(nar)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=nar, gate=gate, gate_at=gate_at))
    service = house.service(upstream)
    description = await described(service, info)
    stream = await opened_nar(service, description, into=house.near)
    await drain(stream, 1)
    return upstream, stream.aclose


async def test_a_download_that_is_nearly_done_is_finished_for_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "LINGER", 0)
    gate = asyncio.Event()
    _, leave = await opened(house, LARGE, gate, 64 * KIB)
    await leave()
    timers = [running for running in house.fills._running.values() if running._timer is not None]
    assert timers, "nobody noticed that the last reader left"
    await turns()
    assert not any(running._timer for running in timers), "nobody judged whether to go on"
    gate.set()
    await settled(house)
    assert house.outcomes() == {"done": 1}
    assert len(house.near.infos) == 1


async def test_a_download_with_much_to_go_is_stopped_when_all_have_left(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "LINGER", 0.01)
    monkeypatch.setattr(fill, "FINISH_BELOW", KIB)
    upstream, leave = await opened(house, LARGE, asyncio.Event(), 64 * KIB)
    await leave()
    await settled(house)
    assert house.outcomes() == {"cancelled": 1}
    assert house.is_empty
    assert all(body.closed for body in upstream.bodies)


async def test_a_follower_outlives_the_one_who_began(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "LINGER", 0.01)
    monkeypatch.setattr(fill, "FINISH_BELOW", 0)
    gate = asyncio.Event()
    info = narinfo(LARGE)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=LARGE, gate=gate, gate_at=64 * KIB))
    service = house.service(upstream)
    description = await described(service, info)
    first, second = await service.open_nar(description), await service.open_nar(description)
    assert first is not None and second is not None
    await first.aclose()
    gate.set()
    assert await second.read_all() == LARGE
    await settled(house)


async def test_closing_the_table_stops_downloads_and_breaks_their_readers(tmp_path: Path) -> None:
    async with house_in(tmp_path) as house:
        info = narinfo(LARGE)
        upstream = FakeUpstream()
        upstream.add(info, Attempt(body=LARGE, gate=asyncio.Event(), gate_at=64 * KIB))
        service = house.service(upstream)
        description = await described(service, info)
        stream = await opened_nar(service, description)
        reading = asyncio.create_task(stream.read_all())
        await asyncio.sleep(0)
        await house.fills.aclose()
        with pytest.raises(Unavailable, match="stopped"):
            await reading
        assert house.is_empty


# No room.


@pytest.mark.parametrize("nar", [SMALL, LARGE], ids=["small", "large"])
async def test_without_room_a_nar_passes_through(house: House, nar: bytes) -> None:
    house.admission.open = False
    info = narinfo(nar)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=nar))
    service = house.service(upstream)
    description = await described(service, info)
    stream = await opened_nar(service, description, into=house.near)
    assert await stream.read_all() == nar
    await settled(house)
    assert house.outcomes() == {"passed": 1}
    assert house.is_empty
    with pytest.raises(StorageFull):
        await service.get(info.store_path.hash)


async def test_without_room_a_slow_reader_downloads_for_itself(house: House) -> None:
    nar = nar_of(os.urandom(12 * MIB))
    house.admission.open = False
    info = narinfo(nar)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=nar))
    service = house.service(upstream)
    description = await described(service, info)
    slow, fast = await service.open_nar(description), await service.open_nar(description)
    assert slow is not None and fast is not None
    assert await fast.read_all() == nar
    assert await slow.read_all() == nar
    assert len(upstream.opened) == 2
    await settled(house)


async def test_a_spool_that_cannot_be_written_passes_through(tmp_path: Path) -> None:
    async with house_in(tmp_path / "missing") as house:
        info = narinfo(LARGE)
        upstream = FakeUpstream()
        upstream.add(info, Attempt(body=LARGE))
        service = house.service(upstream)
        description = await described(service, info)
        stream = await opened_nar(service, description)
        assert await stream.read_all() == LARGE
        await settled(house)
        assert house.outcomes() == {"passed": 1}


class FullBlobs(MemoryBlobService):
    full = True

    async def put_many(self, blobs: object) -> list[object]:  # type: ignore[override]
        if self.full:
            raise StorageFull("no space left")
        return await super().put_many(blobs)  # type: ignore[arg-type, return-value]


async def test_a_store_that_is_full_serves_all_the_same_and_keeps_again_later(
    house: House,
) -> None:
    blobs = FullBlobs()
    house.content = Content(blobs, house.content.directories)
    info = narinfo(SMALL)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=SMALL))
    service = house.service(upstream)
    description = await described(service, info)
    stream = await opened_nar(service, description, into=house.near)
    assert await stream.read_all() == SMALL
    await settled(house)
    assert house.outcomes() == {"passed": 1}
    assert house.admission.failures == ["no space left"]
    blobs.full = False
    assert await service.get(info.store_path.hash) is not None


async def test_errors_of_a_fill_are_errors_of_the_store(house: House) -> None:
    info = narinfo(SMALL)
    upstream = FakeUpstream()
    upstream.add(info, Unavailable("refused"))
    service = house.service(upstream, retries=0)
    with pytest.raises(StoreError, match="refused"):
        await service.get(info.store_path.hash)
    assert await service.describe(info.store_path.hash) is not None, "a download may be tried again"


# Large narinfos.


async def test_narinfos_with_many_references_are_read_and_few_of_them_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(substituter, "PARSED", 200 * KIB)
    references = tuple(store_path(f"reference-{number}") for number in range(500))
    infos = [
        replace(narinfo(SMALL, name=f"many-{number}", signer=None), references=references)
        for number in range(20)
    ]
    upstream = FakeUpstream(narinfos={info.store_path.hash: str(info) for info in infos})
    service = house.service(upstream, keys=None)
    for info in infos:
        found = await service.describe(info.store_path.hash)
        assert found is not None
        assert found.references == references
    assert 0 < len(service._parsed) < len(infos)
