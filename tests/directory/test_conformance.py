"""The contract of `DirectoryService`, over every implementation: one row in `SERVICES` each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.directory.samples import CLOSURE, EMPTY, LEAF, MIDDLE, OTHER, ROOT, directory, named
from tests.rpc.client.rows import REACHES, Reach
from tests.rpc.client.rows import directories as grpc_directories
from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode, SizeRule, SymlinkNode
from tvixstore.directory import (
    CachedDirectoryService,
    DirectoryPutter,
    DirectoryService,
    FallbackDirectoryService,
    LocalDirectoryService,
    MemoryDirectoryService,
    RacingDirectoryService,
    ReadOnlyDirectoryService,
    VerifyDirectoryService,
)
from tvixstore.directory.breaker import BreakerDirectoryService
from tvixstore.directory.chaos import ChaosDirectoryService
from tvixstore.directory.limit import LimitDirectoryService
from tvixstore.directory.metered import MeteredDirectoryService
from tvixstore.directory.mirror import MirrorDirectoryService
from tvixstore.directory.negative import NegativeDirectoryService
from tvixstore.directory.retry import RetryDirectoryService
from tvixstore.directory.shard import ShardDirectoryService
from tvixstore.directory.timeout import TimeoutDirectoryService
from tvixstore.errors import CorruptData, Incomplete, InvalidData, StorageFull, Unavailable
from tvixstore.kv import LmdbEngine, MemoryKeyValue
from tvixstore.metrics import Metrics
from tvixstore.policy.chaos import Chaos
from tvixstore.policy.limit import Limit
from tvixstore.policy.rendezvous import Rendezvous


@dataclass(frozen=True)
class Subject:
    """A service, and where Directories are put for it to find: itself, if it is writable.

    One that takes closures only takes no Directory whose children it has not.
    """

    service: DirectoryService
    backing: DirectoryService
    writable: bool = True
    closures_only: bool = False


Factory = Callable[[Path], AbstractAsyncContextManager[Subject]]


def plain(make: Callable[[], DirectoryService]) -> Factory:
    """The row of a service that is written and read itself, and needs no closing."""

    @asynccontextmanager
    async def factory(_: Path) -> AsyncIterator[Subject]:
        service = make()
        yield Subject(service, service)

    return factory


def over(make: Callable[[DirectoryService], DirectoryService], *, writable: bool) -> Factory:
    """The row of a wrapper, whose inner service is given what it should find."""

    @asynccontextmanager
    async def factory(_: Path) -> AsyncIterator[Subject]:
        inner = MemoryDirectoryService()
        yield Subject(make(inner), inner, writable)

    return factory


def cache(*, fills: bool, near: Callable[[], DirectoryService] = MemoryDirectoryService) -> Factory:
    """The row of a cache that is written itself, or whose far service is."""

    @asynccontextmanager
    async def factory(_: Path) -> AsyncIterator[Subject]:
        far = MemoryDirectoryService()
        service = CachedDirectoryService(near(), far)
        try:
            yield Subject(service, far if fills else service, writable=not fills)
        finally:
            await service.aclose()

    return factory


def grpc(reach: Reach) -> Factory:
    """The row of our client over our server."""

    @asynccontextmanager
    async def factory(path: Path) -> AsyncIterator[Subject]:
        async with grpc_directories(reach, path) as (service, backing):
            yield Subject(service, backing, closures_only=True)

    return factory


class Unwritable(MemoryDirectoryService):
    """Has no room."""

    async def put_many(self, directories: Sequence[Directory]) -> None:
        raise StorageFull("the disk is full")


@asynccontextmanager
async def local_over_lmdb(path: Path) -> AsyncIterator[Subject]:
    engine = LmdbEngine(path)
    try:
        service = LocalDirectoryService(engine.table("directories"))
        yield Subject(service, service)
    finally:
        await engine.aclose()


def shard() -> DirectoryService:
    names = ["one", "two", "three"]
    members = [MemoryDirectoryService() for _ in names]
    return ShardDirectoryService(members, names, Rendezvous(names, [1.0, 2.0, 1.0]))


SERVICES: dict[str, Factory] = {
    "memory": plain(MemoryDirectoryService),
    "local over memory": plain(lambda: LocalDirectoryService(MemoryKeyValue())),
    "local that caches nothing": plain(lambda: LocalDirectoryService(MemoryKeyValue(), 0)),
    "local over lmdb": local_over_lmdb,
    "cache": cache(fills=False),
    "cache that is filled": cache(fills=True),
    "cache whose near takes nothing": cache(fills=True, near=Unwritable),
    "race": over(
        lambda inner: RacingDirectoryService(
            [ReadOnlyDirectoryService(MemoryDirectoryService()), inner], ["empty", "full"]
        ),
        writable=True,
    ),
    "fallback": over(
        lambda inner: FallbackDirectoryService(
            [ReadOnlyDirectoryService(MemoryDirectoryService()), inner], ["empty", "full"]
        ),
        writable=True,
    ),
    "verify": over(VerifyDirectoryService, writable=True),
    "readonly": over(ReadOnlyDirectoryService, writable=False),
    "timeout": over(TimeoutDirectoryService, writable=True),
    "retry": over(RetryDirectoryService, writable=True),
    "breaker": over(BreakerDirectoryService, writable=True),
    "negative": plain(lambda: NegativeDirectoryService(MemoryDirectoryService())),
    "limit": over(lambda inner: LimitDirectoryService(inner, Limit.of(1, 1 << 40)), writable=True),
    "metered": over(
        lambda inner: MeteredDirectoryService(inner, Metrics().node("directory", "inner")),
        writable=True,
    ),
    "mirror": plain(
        lambda: MirrorDirectoryService(
            [MemoryDirectoryService(), MemoryDirectoryService()], ["one", "two"], 2
        )
    ),
    "shard": plain(shard),
    "chaos that is calm": over(lambda inner: ChaosDirectoryService(inner, Chaos()), writable=True),
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


async def closure_of(service: DirectoryService, root: Digest) -> list[Directory]:
    async with aclosing(service.get_closure(root)) as closure:
        return [each async for each in closure]


async def assert_absent(service: DirectoryService, directories: Sequence[Directory]) -> None:
    for each in directories:
        assert await service.get(each.digest) is None


async def test_an_absent_directory_is_none(subject: Subject) -> None:
    assert await subject.service.get(LEAF.digest) is None
    assert await subject.service.get_many([LEAF.digest, ROOT.digest]) == [None, None]


async def test_what_was_put_comes_back(writable: Subject) -> None:
    assert await writable.service.put(LEAF) == LEAF.digest
    assert await writable.service.get(LEAF.digest) == LEAF
    assert await writable.service.put(LEAF) == LEAF.digest
    assert await writable.service.get(LEAF.digest) == LEAF


async def test_children_need_not_be_there_before_their_parent(writable: Subject) -> None:
    if writable.closures_only:
        with pytest.raises(InvalidData):
            await writable.service.put(ROOT)
        await assert_absent(writable.service, [ROOT])
        return
    await writable.service.put(ROOT)
    assert await writable.service.get(ROOT.digest) == ROOT
    assert await writable.service.get(MIDDLE.digest) is None


async def test_the_empty_directory_is_one_like_any_other(subject: Subject) -> None:
    assert await subject.service.get(EMPTY.digest) is None
    await subject.backing.put(EMPTY)
    assert await subject.service.get(EMPTY.digest) == EMPTY
    assert await closure_of(subject.service, EMPTY.digest) == [EMPTY]


async def test_every_kind_of_entry_and_odd_names_are_kept(subject: Subject) -> None:
    odd = named(
        {
            b"\xff\xfe": FileNode(Digest.of(b""), 0),
            b" ": SymlinkNode(b"\xff/../x"),
            b"n" * 255: FileNode(Digest.of(b"x"), 2**64 - 1, executable=True),
            b"d": DirectoryNode(EMPTY.digest, 0),
        }
    )
    await subject.backing.put(odd)
    assert await subject.service.get(odd.digest) == odd


async def test_several_come_in_the_order_asked_for_absent_ones_as_none(subject: Subject) -> None:
    await subject.backing.put_many([LEAF, OTHER])
    asked = [OTHER.digest, MIDDLE.digest, LEAF.digest, OTHER.digest]
    assert await subject.service.get_many(asked) == [OTHER, None, LEAF, OTHER]
    assert await subject.service.get_many([]) == []


async def test_several_are_put_at_once(writable: Subject) -> None:
    await writable.service.put_many(CLOSURE)
    await writable.service.put_many([])
    assert await writable.service.get_many([each.digest for each in CLOSURE]) == CLOSURE


async def test_an_absent_root_is_an_empty_closure(subject: Subject) -> None:
    await subject.backing.put(LEAF)
    assert await closure_of(subject.service, ROOT.digest) == []


async def test_a_closure_goes_breadth_first_and_has_each_directory_once(subject: Subject) -> None:
    await subject.backing.put_many(CLOSURE)
    assert await closure_of(subject.service, ROOT.digest) == [ROOT, MIDDLE, LEAF, OTHER]
    assert await closure_of(subject.service, MIDDLE.digest) == [MIDDLE, LEAF, OTHER]


async def test_a_wide_and_a_deep_closure_are_whole(subject: Subject) -> None:
    leaves = [directory(file=str(number)) for number in range(400)]
    wide = named({b"%03d" % number: leaf for number, leaf in enumerate(leaves)})
    chain = [directory(last=wide)]
    for _ in range(300):
        chain.append(directory(next=chain[-1]))
    await subject.backing.put_many([*leaves, wide, *chain])
    closure = await closure_of(subject.service, chain[-1].digest)
    assert closure == [*reversed(chain), wide, *leaves]


async def test_a_missing_descendant_raises_incomplete_and_names_it(subject: Subject) -> None:
    await subject.backing.put_many([ROOT, MIDDLE, LEAF])
    with pytest.raises(Incomplete) as caught:
        async with aclosing(subject.service.get_closure(ROOT.digest)) as closure:
            async for each in closure:
                assert each in (ROOT, MIDDLE, LEAF)
    assert caught.value.digest == OTHER.digest.raw


async def test_a_closure_may_be_left_early(subject: Subject) -> None:
    await subject.backing.put_many(CLOSURE)
    async with aclosing(subject.service.get_closure(ROOT.digest)) as closure:
        assert await anext(closure) == ROOT
    assert await closure_of(subject.service, MIDDLE.digest) == [MIDDLE, LEAF, OTHER]


def with_sizes(lower: SizeRule, upper: SizeRule) -> list[Directory]:
    """A closure, children first, whose sizes follow one rule below and one above."""
    leaf = directory(one="1", two="2")
    middle = directory(lower, leaf=leaf)
    return [leaf, middle, directory(upper, middle=middle)]


@pytest.mark.parametrize("rule", SizeRule)
async def test_sizes_may_follow_either_rule(subject: Subject, rule: SizeRule) -> None:
    directories = with_sizes(rule, rule)
    await subject.backing.put_many(directories)
    closure = await closure_of(subject.service, directories[-1].digest)
    assert closure == directories[::-1]


async def test_sizes_of_both_rules_in_one_closure_are_corrupt(subject: Subject) -> None:
    directories = with_sizes(SizeRule.DOCUMENTED, SizeRule.DOUBLED)
    await subject.backing.put_many(directories)
    # Of a peer that finds it out itself, all that is known is that it did not answer.
    with pytest.raises((CorruptData, Unavailable) if subject.closures_only else CorruptData):
        await closure_of(subject.service, directories[-1].digest)


@pytest.mark.parametrize("rule", SizeRule)
async def test_a_closure_put_is_there_once_it_is_closed(writable: Subject, rule: SizeRule) -> None:
    directories = with_sizes(rule, rule)
    async with await writable.service.put_closure() as putter:
        for each in [*directories[:-1], *directories]:
            await putter.put(each)
        await assert_absent(writable.service, directories)
        assert await putter.close() == directories[-1].digest
    found = await writable.service.get_many([each.digest for each in directories])
    assert found == directories


async def test_leaving_a_closure_without_closing_it_stores_nothing(writable: Subject) -> None:
    async with await writable.service.put_closure() as putter:
        await putter.put(LEAF)
    await assert_absent(writable.service, [LEAF])


async def refused(subject: Subject, directories: Sequence[Directory]) -> None:
    with pytest.raises(InvalidData):
        async with await subject.service.put_closure() as putter:
            for each in directories:
                await putter.put(each)
            await putter.close()
    await assert_absent(subject.service, directories)


async def test_a_directory_before_its_child_is_refused(writable: Subject) -> None:
    await refused(writable, [LEAF, MIDDLE, OTHER])


async def test_a_closure_that_does_not_hang_together_is_refused(writable: Subject) -> None:
    await refused(writable, [LEAF, OTHER])


async def test_a_closure_that_goes_on_above_its_root_is_refused(writable: Subject) -> None:
    await refused(writable, [LEAF, OTHER, MIDDLE, LEAF])


async def test_a_closure_of_nothing_is_refused(writable: Subject) -> None:
    await refused(writable, [])


async def test_a_closure_with_sizes_of_both_rules_is_refused(writable: Subject) -> None:
    await refused(writable, with_sizes(SizeRule.DOUBLED, SizeRule.DOCUMENTED))


class _ForgetsThatItIsMissing(MemoryDirectoryService):
    """Ends a closure cleanly where a descendant is missing."""

    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        try:
            async for each in super().get_closure(root):
                yield each
        except Incomplete:
            return


class _StoresAtOnce(MemoryDirectoryService):
    """Stores what a closure's putter was given without waiting for its end."""

    async def put_closure(self) -> DirectoryPutter:
        return _EagerPutter(self, await super().put_closure())


@dataclass(eq=False)
class _EagerPutter(DirectoryPutter):
    service: DirectoryService
    inner: DirectoryPutter

    async def put(self, directory: Directory) -> None:
        await self.inner.put(directory)
        await self.service.put(directory)

    async def close(self) -> Digest:
        return await self.inner.close()

    async def abort(self) -> None:
        await self.inner.abort()


class _MixesUp(MemoryDirectoryService):
    """Leaves out of several what is absent."""

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        return [each for each in await super().get_many(digests) if each is not None]


def _broken(service: DirectoryService) -> Subject:
    return Subject(service, service)


async def test_the_suite_catches_planted_bugs() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        await test_a_missing_descendant_raises_incomplete_and_names_it(
            _broken(_ForgetsThatItIsMissing())
        )
    with pytest.raises(AssertionError):
        await test_leaving_a_closure_without_closing_it_stores_nothing(_broken(_StoresAtOnce()))
    with pytest.raises(AssertionError):
        await test_several_come_in_the_order_asked_for_absent_ones_as_none(_broken(_MixesUp()))
