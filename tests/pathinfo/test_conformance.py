"""The contract of `PathInfoService`, over every implementation: one row in `SERVICES` each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.pathinfo.samples import (
    KEYS,
    STRANGER,
    TRUSTED,
    Sample,
    Tree,
    add,
    memory_content,
    secret_key,
    signature,
    signed,
    store_path,
)
from tests.pathinfo.scripted import Scripted
from tests.pathinfo.stripped import StrippedPathInfoService
from tests.rpc.client.rows import REACHES, Reach
from tests.rpc.client.rows import path_infos as grpc_path_infos
from tvixstore.castore import Digest, FileNode
from tvixstore.errors import Incomplete, InvalidData, ReadOnly, Unavailable, Unsupported
from tvixstore.kv import LmdbEngine, MemoryKeyValue
from tvixstore.metrics import Metrics
from tvixstore.nar import NarIdentities
from tvixstore.nix import ContentAddress, KeyRing
from tvixstore.pathinfo import (
    Description,
    LocalPathInfoService,
    MemoryPathInfoService,
    PathInfo,
    PathInfoService,
)
from tvixstore.pathinfo.access import LastAccess
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.cached import CachedPathInfoService
from tvixstore.pathinfo.chaos import ChaosPathInfoService
from tvixstore.pathinfo.countersigning import CountersigningPathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.limit import LimitPathInfoService
from tvixstore.pathinfo.lru import LruPathInfoService
from tvixstore.pathinfo.metered import MeteredPathInfoService
from tvixstore.pathinfo.mirror import MirrorPathInfoService
from tvixstore.pathinfo.names import NamesPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.pathinfo.optional import OptionalPathInfoService
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.pathinfo.readonly import ReadOnlyPathInfoService
from tvixstore.pathinfo.required import SignatureRequiredPathInfoService
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.pathinfo.shard import ShardPathInfoService
from tvixstore.pathinfo.signing import Signer, SigningPathInfoService
from tvixstore.pathinfo.timeout import TimeoutPathInfoService
from tvixstore.pathinfo.verify import VerifyPathInfoService
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.chaos import Chaos
from tvixstore.policy.limit import Limit
from tvixstore.policy.rendezvous import Rendezvous
from tvixstore.streams import ByteStream
from tvixstore.tree import Content


@dataclass(frozen=True)
class Subject:
    """A service; where path infos are put for it to find; and what of the contract it keeps.

    `backing` is the service itself, if that is writable, and `content` where what it describes is.
    """

    service: PathInfoService
    backing: PathInfoService
    content: Content
    writable: bool = True
    lists: bool = True
    # Whether it can say what is missing where content is: gRPC has only words for it.
    names_missing: bool = True


Factory = Callable[[Path], AbstractAsyncContextManager[Subject]]


def plain(make: Callable[[Content], PathInfoService], *, lists: bool = True) -> Factory:
    """The row of a service that is written and read itself, and needs no closing."""

    @asynccontextmanager
    async def factory(_: Path) -> AsyncIterator[Subject]:
        content = memory_content()
        service = make(content)
        yield Subject(service, service, content, lists=lists)

    return factory


def over(
    make: Callable[[PathInfoService], PathInfoService],
    *,
    writable: bool = True,
    lists: bool = True,
) -> Factory:
    """The row of a wrapper around a memory service, which is given what it should find."""

    @asynccontextmanager
    async def factory(_: Path) -> AsyncIterator[Subject]:
        content = memory_content()
        inner = MemoryPathInfoService(content, KEYS)
        yield Subject(make(inner), inner, content, writable, lists)

    return factory


def grpc(reach: Reach) -> Factory:
    """The row of our client over our server."""

    @asynccontextmanager
    async def factory(path: Path) -> AsyncIterator[Subject]:
        async with grpc_path_infos(reach, path) as (service, backing, content):
            yield Subject(service, backing, content, names_missing=False)

    return factory


def _held(service: PathInfoService) -> Content:
    assert service.content is not None
    return service.content


@asynccontextmanager
async def local_over_lmdb(path: Path) -> AsyncIterator[Subject]:
    content = memory_content()
    engine = LmdbEngine(path)
    service = LocalPathInfoService(
        engine.table("pathinfos"), content, access=LastAccess(engine.table("access")), keys=KEYS
    )
    try:
        yield Subject(service, service, content)
    finally:
        await service.aclose()
        await engine.aclose()


OURS = secret_key("ours-1")


def signing(make: Callable[[PathInfoService], PathInfoService]) -> Factory:
    """The row of a wrapper that adds a signature of `OURS` to what the contract says."""
    return over(lambda inner: StrippedPathInfoService(make(inner), OURS.name))


def _required(inner: PathInfoService) -> PathInfoService:
    required = SignatureRequiredPathInfoService(inner, KeyRing([OURS.public_key]))
    # In front of it, so that whatever the contract puts has the signature that is required.
    return SigningPathInfoService(required, Signer(OURS))


SHARDS = ["one", "two", "three"]

SERVICES: dict[str, Factory] = {
    "memory": plain(lambda content: MemoryPathInfoService(content, KEYS)),
    "local over memory": plain(
        lambda content: LocalPathInfoService(MemoryKeyValue(), content, keys=KEYS)
    ),
    "local over lmdb": local_over_lmdb,
    "cache": over(lambda near: CachedPathInfoService(near, Scripted(None))),
    "race": over(lambda inner: RacingPathInfoService([Scripted(None), inner], ["empty", "full"])),
    "fallback": over(
        lambda inner: FallbackPathInfoService([Scripted(None), inner], ["empty", "full"])
    ),
    "timeout": over(TimeoutPathInfoService),
    "retry": over(RetryPathInfoService),
    "breaker": over(BreakerPathInfoService),
    "optional": over(lambda inner: OptionalPathInfoService(inner, "spare", Breaker())),
    "negative": over(NegativePathInfoService),
    "limit": over(lambda inner: LimitPathInfoService(inner, Limit.of(1, 1 << 40))),
    "names": over(lambda inner: NamesPathInfoService(inner, ["*"], ["secret-*"])),
    "chaos that is calm": over(lambda inner: ChaosPathInfoService(inner, Chaos())),
    "mirror": plain(
        lambda content: MirrorPathInfoService(
            [MemoryPathInfoService(content, KEYS), MemoryPathInfoService(content, KEYS)],
            ["one", "two"],
            quorum=2,
        )
    ),
    "shard": plain(
        lambda content: ShardPathInfoService(
            [MemoryPathInfoService(content, KEYS) for _ in SHARDS],
            SHARDS,
            Rendezvous(SHARDS, [1.0, 2.0, 1.0]),
        )
    ),
    "lru": plain(lambda content: LruPathInfoService(1000, content, KEYS)),
    "readonly": over(ReadOnlyPathInfoService, writable=False),
    "verify": over(
        lambda inner: VerifyPathInfoService(inner, NarIdentities(_held(inner), MemoryKeyValue()))
    ),
    "metered": over(
        lambda inner: MeteredPathInfoService(inner, Metrics().node("pathinfos", "inner"))
    ),
    "keyfile-signing": signing(lambda inner: SigningPathInfoService(inner, Signer(OURS))),
    "countersigning": signing(
        lambda inner: CountersigningPathInfoService(inner, Signer(OURS), KEYS)
    ),
    "signature-required": signing(_required),
    **{name: grpc(reach) for name, reach in REACHES.items()},
}


@pytest.fixture(params=SERVICES)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with SERVICES[request.param](tmp_path) as subject:
        yield subject


@pytest.fixture
def writable(subject: Subject) -> Subject:
    if not subject.writable:
        pytest.skip("takes no writes")
    return subject


TREE: Tree = {
    b"bin": {b"tool": b"\x7fELF" * 5000},
    b"link": (b"bin/tool",),
    b"empty": b"",
    b"dir": {},
}


async def put_sample(subject: Subject, name: str = "hello-1.0") -> Sample:
    """A signed path with content and references, where `subject` finds it."""
    # Not in the order that Nix would sort them in.
    references = [store_path("zlib-1.3"), store_path("glibc-2.40"), store_path(name)]
    sample = await add(
        subject.content, name, TREE, references=references, signers=[TRUSTED, STRANGER]
    )
    return Sample(await subject.backing.put(sample.info), sample.nar)


async def read(stream: ByteStream | None) -> bytes:
    assert stream is not None
    return await stream.read_all()


async def listed(service: PathInfoService) -> list[PathInfo]:
    async with aclosing(service.list()) as infos:
        return [info async for info in infos]


async def test_an_absent_path_is_none(subject: Subject) -> None:
    other = await put_sample(subject)
    path = store_path("absent")
    assert await subject.service.get(path.hash) is None
    assert await subject.service.describe(path.hash) is None
    assert await subject.service.describe(path.hash, other.info.nar_sha256) is None
    assert await subject.service.open_nar(replace(other.info, store_path=path)) is None


async def test_what_was_put_comes_back_to_the_letter(subject: Subject) -> None:
    sample = await add(
        subject.content,
        "lib",
        b"text",
        references=[store_path("z"), store_path("a"), store_path("lib")],
        signers=[STRANGER, TRUSTED],
    )
    whole = replace(
        sample.info,
        deriver=store_path("lib.drv"),
        ca=ContentAddress.parse(f"fixed:r:sha256:{'0' * 52}"),
    )
    assert await subject.backing.put(whole) == whole
    assert await subject.service.get(sample.key) == whole


async def test_a_description_says_what_the_path_info_says(subject: Subject) -> None:
    sample = await put_sample(subject)
    described = await subject.service.describe(sample.key)
    assert described is not None
    node = sample.info.node
    assert PathInfo.of(described, node) == PathInfo.of(sample.info, node)


async def test_a_description_is_pinned_to_a_nar_hash(subject: Subject) -> None:
    sample = await put_sample(subject)
    pinned = await subject.service.describe(sample.key, sample.info.nar_sha256)
    assert pinned is not None
    assert pinned.nar_sha256 == sample.info.nar_sha256
    assert await subject.service.describe(sample.key, bytes(32)) is None


async def test_a_nar_is_served_whole_and_in_parts(subject: Subject) -> None:
    sample = await put_sample(subject)
    nar = sample.nar
    assert await read(await subject.service.open_nar(sample.info)) == nar
    for offset, length in [(0, 0), (0, 1), (1, 96), (97, None), (len(nar) - 1, 5), (300, 9000)]:
        end = None if length is None else offset + length
        stream = await subject.service.open_nar(sample.info, offset, length)
        assert await read(stream) == nar[offset:end]


async def test_an_offset_past_the_end_of_a_nar_is_an_empty_stream(subject: Subject) -> None:
    sample = await put_sample(subject)
    for offset in (len(sample.nar), len(sample.nar) + 100):
        assert await read(await subject.service.open_nar(sample.info, offset)) == b""


async def test_another_nar_of_the_same_path_is_not_to_be_had(subject: Subject) -> None:
    sample = await put_sample(subject)
    other_hash = replace(sample.info, nar_sha256=bytes(32))
    other_size = replace(sample.info, nar_size=sample.info.nar_size + 8)
    assert await subject.service.open_nar(other_hash) is None
    assert await subject.service.open_nar(other_size) is None


async def test_a_stream_may_be_left_early_and_closed_twice(subject: Subject) -> None:
    sample = await put_sample(subject)
    stream = await subject.service.open_nar(sample.info)
    assert stream is not None
    assert sample.nar.startswith(await anext(stream))
    await stream.aclose()
    await stream.aclose()
    assert await read(await subject.service.open_nar(sample.info)) == sample.nar


async def test_missing_content_is_incomplete_and_never_a_clean_end(subject: Subject) -> None:
    sample = await add(subject.content, "hollow", b"x" * 100)
    gone = Digest.of(b"gone")
    info = replace(sample.info, node=FileNode(gone, 100))
    await subject.backing.put(info)
    with pytest.raises(Incomplete if subject.names_missing else Unavailable) as caught:
        await read(await subject.service.open_nar(info))
    if subject.names_missing:
        assert isinstance(caught.value, Incomplete)
        assert caught.value.digest == gone.raw


async def test_every_path_is_listed(subject: Subject) -> None:
    if not subject.lists:
        with pytest.raises(Unsupported):
            await listed(subject.service)
        return
    assert await listed(subject.service) == []
    samples = [await put_sample(subject, f"path-{number}") for number in range(450)]
    found = await listed(subject.service)
    assert len(found) == len(samples)
    assert {info.store_path for info in found} == {sample.info.store_path for sample in samples}
    async with aclosing(subject.service.list()) as infos:
        assert await anext(infos) in found


async def test_a_put_is_taken_or_refused_as_read_only(subject: Subject) -> None:
    sample = await add(subject.content, "hello", b"hello")
    if subject.writable:
        assert await subject.service.put(sample.info) == sample.info
    else:
        with pytest.raises(ReadOnly):
            await subject.service.put(sample.info)


async def test_the_same_path_twice_is_the_same_as_once(writable: Subject) -> None:
    sample = await put_sample(writable)
    assert await writable.service.put(sample.info) == sample.info
    assert await writable.service.get(sample.key) == sample.info


async def test_signatures_are_merged_where_the_nar_is_the_same(writable: Subject) -> None:
    sample = await add(writable.content, "hello", b"hello")
    await writable.service.put(signed(sample.info, STRANGER))
    merged = await writable.service.put(signed(sample.info, TRUSTED, STRANGER))
    assert merged.signatures == (
        signature(sample.info, STRANGER),
        signature(sample.info, TRUSTED),
    )
    assert await writable.service.get(sample.key) == merged
    assert await writable.service.put(sample.info) == merged


async def test_what_a_trusted_key_signed_stands_against_an_unsigned_claim(
    writable: Subject,
) -> None:
    sample = await add(writable.content, "hello", b"hello", references=[store_path("glibc")])
    right = signed(sample.info, TRUSTED)
    wrong = replace(sample.info, references=(), deriver=store_path("evil.drv"))
    await writable.service.put(wrong)
    assert await writable.service.put(right) == right
    assert await writable.service.put(wrong) == right
    assert await writable.service.get(sample.key) == right


async def test_another_nar_is_refused(writable: Subject) -> None:
    old = await add(writable.content, "hello", b"old")
    new = await add(writable.content, "hello", b"new")
    for before, after in [
        (signed(old.info), signed(new.info)),
        (signed(old.info, STRANGER), signed(new.info, STRANGER)),
        (signed(old.info, TRUSTED), signed(new.info, STRANGER)),
        (signed(old.info, TRUSTED), signed(new.info, TRUSTED)),
    ]:
        kept = await writable.service.put(before)
        with pytest.raises(InvalidData):
            await writable.service.put(after)
        assert await writable.service.get(old.key) == kept


async def test_a_trusted_nar_takes_the_place_of_another_that_is_not(writable: Subject) -> None:
    old = await add(writable.content, "hello", b"old", signers=[STRANGER])
    new = await add(writable.content, "hello", b"new", signers=[TRUSTED])
    await writable.service.put(old.info)
    assert await writable.service.put(new.info) == new.info
    assert await writable.service.get(new.key) == new.info
    assert await writable.service.open_nar(old.info) is None
    assert await read(await writable.service.open_nar(new.info)) == new.nar


async def test_a_forged_signature_is_not_trusted(writable: Subject) -> None:
    old = await add(writable.content, "hello", b"old")
    new = await add(writable.content, "hello", b"new")
    forged = replace(new.info, signatures=(signature(old.info, TRUSTED),))
    await writable.service.put(old.info)
    with pytest.raises(InvalidData):
        await writable.service.put(forged)


async def test_puts_of_one_path_at_once_lose_no_signature(writable: Subject) -> None:
    sample = await add(writable.content, "hello", b"hello")
    made = [replace(signature(sample.info, STRANGER), name=f"key-{n}") for n in range(20)]
    async with asyncio.TaskGroup() as group:
        for each in made:
            group.create_task(writable.service.put(replace(sample.info, signatures=(each,))))
    stored = await writable.service.get(sample.key)
    assert stored is not None
    assert set(stored.signatures) == set(made)


async def test_of_two_nars_put_at_once_one_wins_and_one_is_refused(writable: Subject) -> None:
    one = await add(writable.content, "hello", b"one")
    two = await add(writable.content, "hello", b"two")
    results = await asyncio.gather(
        writable.service.put(one.info), writable.service.put(two.info), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, InvalidData)]
    won = [result for result in results if isinstance(result, PathInfo)]
    assert (len(refused), len(won)) == (1, 1)
    assert await writable.service.get(one.key) == won[0]


class _Unpinned(MemoryPathInfoService):
    """Describes whatever it has, and serves it."""

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        return await super().describe(path_hash)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        info = await self.get(description.store_path.hash)
        return None if info is None else await super().open_nar(info, offset, length)


class _LastPutWins(MemoryPathInfoService):
    async def put(self, info: PathInfo) -> PathInfo:
        self.infos[info.store_path.hash] = info
        return info


class _HidesWhatIsHollow(MemoryPathInfoService):
    """Takes missing content for an absent path."""

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        stream = await super().open_nar(description, offset, length)
        try:
            await read(stream)
        except Incomplete:
            return None
        return await super().open_nar(description, offset, length)


class _ListsOnlyOnePage(MemoryPathInfoService):
    async def list(self) -> AsyncGenerator[PathInfo, None]:
        for info in tuple(self.infos.values())[:200]:
            yield info


def _broken(make: Callable[[Content, KeyRing], PathInfoService]) -> Subject:
    content = memory_content()
    service = make(content, KEYS)
    return Subject(service, service, content)


async def test_the_suite_catches_planted_bugs() -> None:
    with pytest.raises(AssertionError):
        await test_a_description_is_pinned_to_a_nar_hash(_broken(_Unpinned))
    with pytest.raises(AssertionError):
        await test_another_nar_of_the_same_path_is_not_to_be_had(_broken(_Unpinned))
    with pytest.raises(AssertionError):
        await test_signatures_are_merged_where_the_nar_is_the_same(_broken(_LastPutWins))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        await test_another_nar_is_refused(_broken(_LastPutWins))
    with pytest.raises(AssertionError):
        await test_missing_content_is_incomplete_and_never_a_clean_end(_broken(_HidesWhatIsHollow))
    with pytest.raises(AssertionError):
        await test_every_path_is_listed(_broken(_ListsOnlyOnePage))
