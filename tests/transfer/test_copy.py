"""Copying between two stores: what goes, in which order, and what is left when it breaks off."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from tests.pathinfo.samples import KEYS, STRANGER, TRUSTED, Sample, Tree, store_path
from tests.transfer.stores import Two, names_of, two_stores, wanted
from tvixstore.castore import Digest
from tvixstore.errors import AbsentPath, CorruptData, Incomplete, Unavailable, Untrusted
from tvixstore.pathinfo import Description, PathInfo
from tvixstore.transfer import Copy, Outcome, Watcher
from tvixstore.transfer.content import BATCH_ITEMS, SMALL


async def chain(two: Two, *names: str) -> list[Sample]:
    """Paths of the source, each of which refers to the one before and to itself."""
    paths: list[Sample] = []
    for name in names:
        tree: Tree = {b"f": name.encode(), b"d": {b"same": b"in all of them"}}
        paths.append(await two.source.add(name, tree, paths[-1:], itself=True))
    return paths


async def test_a_path_goes_with_all_that_it_refers_to_references_first() -> None:
    async with two_stores() as two:
        *_, top = await chain(two, "a", "b", "c")
        copying = await two.copy(top)
        assert names_of(copying, "copied") == two.target.path_infos.put_names == ["a", "b", "c"]
        assert await two.target.is_closed()
        stored = await two.target.path_infos.get(top.key)
        assert stored == top.info


async def test_without_recursion_only_the_named_paths_go() -> None:
    async with two_stores() as two:
        _, middle, top = await chain(two, "a", "b", "c")
        await two.copy(top, middle, recursive=False)
        assert two.target.path_infos.put_names == ["b", "c"]


async def test_what_is_there_is_skipped_and_no_blob_is_sent_twice() -> None:
    async with two_stores() as two:
        first, second, third = await chain(two, "a", "b", "c")
        await two.copy(second)
        sent = list(two.target.blobs.put_digests)
        copying = await two.copy(third)
        assert names_of(copying, "skipped") == ["a", "b"]
        assert names_of(copying, "copied") == ["c"]
        assert two.target.blobs.put_digests == [*sent, Digest.of(b"c")]
        assert names_of(await two.copy(first, third), "copied") == []


@pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1, 3 * SMALL + 7])
async def test_files_of_every_size_arrive(size: int) -> None:
    data = random.Random(size).randbytes(size)
    async with two_stores() as two:
        alone = await two.source.add("alone", data)
        inside = await two.source.add("inside", {b"x": {b"file": data, b"link": (b"file",)}})
        link = await two.source.add("link", (b"anywhere",))
        await two.copy(alone, inside, link)
        assert await two.target.blobs.read(Digest.of(data)) == data
        assert await two.target.is_closed()


async def test_more_small_files_than_a_batch_arrive_and_those_there_are_left_out() -> None:
    async with two_stores() as two:
        names = [b"%d" % number for number in range(2 * BATCH_ITEMS + 10)]
        # The first of a batch are what it is judged by.
        await two.target.blobs.put(b"0")
        await two.target.blobs.put(b"200")
        many = await two.source.add("many", {name: name for name in names})
        copying = await two.copy(many)
        assert await two.target.is_closed()
        put = two.target.blobs.put_digests
        assert len(put) == len(set(put)) == len(names) - 2
        assert copying.report.sent == sum(map(len, names)) - len("0200")


async def test_absent_paths_are_all_named_and_nothing_is_copied() -> None:
    async with two_stores() as two:
        present = await two.source.add("present", b"x")
        absent = [await two.target.add(name, b"y") for name in ("gone-1", "gone-2")]
        two.target.path_infos.put_names.clear()
        with pytest.raises(AbsentPath) as raised:
            await two.copy(present, *absent)
        lines = str(raised.value).splitlines()
        assert len(lines) == 2
        assert all("is not in the source" in line for line in lines)
        assert two.target.path_infos.put_names == []


async def test_an_absent_reference_is_named_with_who_needs_it() -> None:
    async with two_stores() as two:
        gone = await two.target.add("gone", b"x")
        top = await two.source.add("top", b"y", [gone])
        with pytest.raises(AbsentPath, match=r"-gone, which .*-top needs, is not in the source"):
            await two.copy(top)


async def test_paths_that_refer_to_each_other_in_a_circle_are_refused() -> None:
    async with two_stores() as two:
        one = await two.source.add("one", b"1")
        other = await two.source.add("other", b"2", [one])
        circle = replace(one.info, references=(other.info.store_path,))
        two.source.path_infos.infos[one.key] = circle
        with pytest.raises(CorruptData, match="refers to itself by way of others"):
            await two.copy(other)


async def test_a_failure_in_the_middle_leaves_whole_closures_and_copying_again_goes_on() -> None:
    async with two_stores() as two:
        *_, top = await chain(two, *"abcdef")
        failure = Unavailable("the disk is away")
        two.target.path_infos.failing["d"] = failure
        with pytest.raises(Unavailable) as raised:
            await two.copy(top)
        assert raised.value is failure
        assert two.target.path_infos.put_names == ["a", "b", "c"]
        assert await two.target.is_closed()
        del two.target.path_infos.failing["d"]
        sent = list(two.target.blobs.put_digests)
        copying = await two.copy(top)
        assert names_of(copying, "skipped") == ["a", "b", "c"]
        assert await two.target.is_closed()
        assert len(set(two.target.blobs.put_digests)) == len(two.target.blobs.put_digests)
        assert two.target.blobs.put_digests[: len(sent)] == sent


async def test_content_that_the_source_lost_is_no_path_in_the_target() -> None:
    async with two_stores() as two:
        path = await two.source.add("path", {b"f": b"lost"})
        del two.source.blobs.blobs[Digest.of(b"lost")]
        with pytest.raises(Incomplete, match=str(Digest.of(b"lost"))):
            await two.copy(path)
        assert two.target.path_infos.put_names == []


async def test_a_root_that_is_not_of_the_promised_nar_is_refused() -> None:
    async with two_stores() as two:
        path = await two.source.add("path", b"what was signed")
        lie = await two.source.add("lie", b"something else")
        two.source.path_infos.infos[path.key] = replace(path.info, node=lie.info.node)
        with pytest.raises(CorruptData, match="what came has a NAR of"):
            await two.copy(path)
        assert two.target.path_infos.put_names == []


async def test_with_keys_only_what_they_signed_goes() -> None:
    async with two_stores() as two:
        signed = await two.source.add("signed", b"x", signers=[TRUSTED])
        strange = await two.source.add("strange", b"y", signers=[STRANGER])
        await two.copy(signed, keys=KEYS)
        with pytest.raises(Untrusted, match=r"-strange has no trusted signature"):
            await two.copy(strange, keys=KEYS)
        assert two.target.path_infos.put_names == ["signed"]
        stored = await two.target.path_infos.get(signed.key)
        assert stored is not None and stored.signatures == signed.info.signatures


class Told(Watcher):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def planned(self, paths: int, size: int) -> None:
        self.events.append(f"planned {paths}")

    def began(self, description: Description) -> None:
        self.events.append(f"began {description.store_path.name}")

    def differs(self, description: Description, there: Description) -> None:
        self.events.append(f"differs {description.store_path.name}")

    def done(self, description: Description, outcome: Outcome) -> None:
        self.events.append(f"{outcome} {description.store_path.name}")


async def test_a_watcher_is_told_of_each_path_and_of_other_nars_that_stay() -> None:
    async with two_stores() as two:
        await two.target.add("same", b"an older build")
        same = await two.source.add("same", b"a newer build")
        new = await two.source.add("new", b"new", [same])
        told = Told()
        await two.copy(new, watcher=told)
        assert told.events == [
            "planned 2",
            "differs same",
            "skipped same",
            "began new",
            "copied new",
        ]


class Stalling(Watcher):
    """Knows when `names` have begun."""

    def __init__(self, *names: str) -> None:
        self._left = set(names)
        self.begun = asyncio.Event()

    def began(self, description: Description) -> None:
        self._left.discard(description.store_path.name)
        if not self._left:
            self.begun.set()


async def test_as_many_paths_as_jobs_are_on_their_way_and_being_cancelled_ends_all() -> None:
    async with two_stores() as two:
        paths = [await two.source.add(name, name.encode()) for name in "abcd"]
        never = asyncio.Event()

        async def get(path_hash: bytes) -> PathInfo | None:
            await never.wait()
            return None

        watcher = Stalling("a", "b", "c")
        copying = Copy(two.source.source, two.target.target(), 3, watcher)
        two.source.path_infos.get = get  # type: ignore[method-assign]
        describe = {each.key: each.info for each in paths}

        async def described(path_hash: bytes, nar_sha256: bytes | None = None) -> Description:
            return describe[path_hash]

        two.source.path_infos.describe = described  # type: ignore[method-assign]
        running = asyncio.create_task(copying.run(wanted(*paths)))
        await watcher.begun.wait()
        assert watcher._left == set()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(asyncio.all_tasks()) == 1
        assert two.target.path_infos.put_names == []


async def test_one_job_copies_a_wide_closure_too() -> None:
    async with two_stores() as two:
        leaves = [await two.source.add(f"leaf-{number}", b"%d" % number) for number in range(40)]
        top = await two.source.add("top", b"top", leaves)
        copying = await two.copy(top, jobs=1)
        assert names_of(copying, "copied")[-1] == "top"
        assert await two.target.is_closed()


async def test_a_target_that_cannot_say_what_is_behind_it_is_copied_to() -> None:
    async with two_stores() as two:
        path = await two.source.add("path", b"x")

        async def describe(path_hash: bytes, nar_sha256: bytes | None = None) -> Description | None:
            raise Unavailable("its upstream is down")

        two.target.path_infos.describe = describe  # type: ignore[method-assign]
        assert names_of(await two.copy(path), "copied") == ["path"]


async def test_a_path_that_is_only_known_to_be_behind_the_target_is_copied() -> None:
    async with two_stores() as two:
        path = await two.source.add("path", b"x")

        async def describe(path_hash: bytes, nar_sha256: bytes | None = None) -> Description | None:
            return Description(
                store_path=store_path("path"),
                nar_sha256=path.info.nar_sha256,
                nar_size=path.info.nar_size,
            )

        two.target.path_infos.describe = describe  # type: ignore[method-assign]
        assert names_of(await two.copy(path), "copied") == ["path"]
