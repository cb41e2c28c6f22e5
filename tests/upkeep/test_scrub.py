"""Checks of a store: what is sound is found so, and every kind of damage is found and repaired."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from tests.support.caches import make_path
from tests.upkeep.damages import DAMAGES, Damage, chunk_file
from tests.upkeep.house import House, made_paths, tree, verify
from tvixstore.blob.audit import BlobAudit
from tvixstore.castore import Digest, Directory, FileNode
from tvixstore.compose import load_text
from tvixstore.compose.composition import Composition
from tvixstore.errors import AbsentPath, Unavailable
from tvixstore.nix import StorePath
from tvixstore.upkeep import LocalUpkeep, Progress, Summary, VerifyRequest
from tvixstore.upkeep.content import BlobScrub, DirectoryScrub
from tvixstore.upkeep.paths import PathScrub
from tvixstore.upkeep.rows import CHECKS
from tvixstore.upkeep.scrub import Scrub

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> House:
    """One that was filled from its upstream, to be copied."""
    house = House(tmp_path_factory.mktemp("filled"), made_paths())
    asyncio.run(house.fill())
    return house


@pytest.fixture
def house(filled: House, tmp_path: Path) -> House:
    shutil.copytree(filled.state, tmp_path / "state")
    return House(tmp_path, list(filled.paths.values()))


async def test_a_filled_store_is_sound_and_all_of_it_was_looked_at(house: House) -> None:
    async with house.open() as composition:
        verified = await verify(composition.upkeep)
    assert verified.findings == []
    summary = verified.summary
    assert (summary.paths, summary.blobs, summary.directories) == (3, 2, 6)
    assert summary.chunks > 6
    assert summary.bytes > 2 * sum(len(path.nar) for path in house.paths.values()) * 0.99
    assert not (summary.damaged or summary.unread or summary.strays or summary.partial)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_damage_is_found_and_named_and_nothing_is_done_about_it(
    house: House, damage: Damage
) -> None:
    await assert_found(house, damage)


async def assert_found(house: House, damage: Damage) -> None:
    key = await damage.plant(house)
    async with house.open() as composition:
        verified = await verify(composition.upkeep)
        again = await verify(composition.upkeep)
    assert verified.findings == again.findings
    assert all(finding.outcome == "found" for finding in verified.findings)
    assert any(
        finding.kind == damage.named and key in finding.key for finding in verified.findings
    ), verified.findings
    kinds = {finding.kind for finding in verified.findings}
    # Whoever changes rows behind its back leaves counts behind that do not add up.
    assert kinds <= {damage.named, *damage.also, "counts"}, verified.findings
    if damage.path is not None:
        digits = house.store_path(damage.path).digits
        assert any(digits in finding.key for finding in verified.findings)
    summary = verified.summary
    assert summary.damaged == summary.unrepaired
    assert (summary.damaged > 0) != (damage.named == "stray")
    assert (summary.strays > 0) == ("stray" in kinds)


async def _nothing(*_: object) -> None:
    """Finds nothing."""


def skip(owner: type, method: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(owner, method, _nothing)


def skip_table(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setitem(CHECKS, name, (CHECKS[name][0], lambda key, row: None))


# What a check could fail to look at, and the damage that it would then not find.
BLIND = {
    "chunks": (skip(BlobScrub, "_chunks"), "flip_in_file"),
    "rows of chunks": (skip(BlobScrub, "_chunks"), "garble_chunk_row"),
    "strays": (skip(BlobScrub, "_strays"), "file_beside_an_inline_chunk"),
    "chunk lists": (skip(BlobScrub, "_lists"), "flip_in_chunk_list"),
    "chunks of lists": (skip(BlobAudit, "_list_trouble"), "delete_chunk_row"),
    "Directories": (skip(DirectoryScrub, "everything"), "flip_in_directory"),
    "children": (skip(DirectoryScrub, "_lacks"), "dangling_directory"),
    "sizes": (skip(DirectoryScrub, "_lacks"), "file_of_another_size"),
    "those that dangle": (skip(DirectoryScrub, "finish"), "delete_directory"),
    "path infos": (skip(Scrub, "_all_paths"), "flip_in_path_info"),
    "damaged path infos": (skip(PathScrub, "damaged"), "path_info_of_another"),
    "NARs": (skip(PathScrub, "_trouble"), "another_nar_hash"),
    "nodes": (skip(PathScrub, "_trouble"), "another_node"),
    "what is calculated": (skip(PathScrub, "_check_remembered"), "another_nar_calculated"),
    **{
        name: (skip_table(name), damage)
        for name, damage in {
            "calculated": "flip_in_calculated",
            "remembered": "flip_in_remembered",
            "access": "truncate_access",
            "pins": "flip_in_pin",
        }.items()
    },
}


@pytest.mark.parametrize("blind", BLIND.values(), ids=BLIND.keys())
async def test_a_check_that_fails_to_look_at_something_is_caught(
    house: House, blind: tuple[Callable[[pytest.MonkeyPatch], None], str]
) -> None:
    plant, damage = blind
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        with pytest.raises(AssertionError):
            await assert_found(house, DAMAGES[damage])


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_damage_is_repaired_with_what_an_upstream_has(house: House, damage: Damage) -> None:
    await damage.plant(house)
    async with house.open() as composition:
        verified = await verify(composition.upkeep, repair=True)
        outcomes = {finding.outcome for finding in verified.findings}
        assert outcomes and outcomes <= {"dropped", "refetched", "rewritten", "removed"}
        assert verified.summary.unrepaired == 0
        if damage.path is not None:
            digits = house.store_path(damage.path).digits
            refetched = [each for each in verified.findings if each.outcome == "refetched"]
            assert [each.kind for each in refetched] == ["path"] and digits in refetched[0].key
    # Without an upstream, so that all of it has to be here.
    async with house.open(upstream=False) as composition:
        again = await verify(composition.upkeep)
        assert again.findings == [] and again.summary.paths == 3
        await house.assert_served(composition)


# The others are told apart by what they are found as, and repaired in one of these ways.
_TYPICAL = {"flip_in_file", "flip_in_chunk_list", "flip_in_directory", "another_nar_hash"}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, id=name, marks=[] if name in _TYPICAL else pytest.mark.slow)
        for name, damage in DAMAGES.items()
    ],
)
async def test_without_an_upstream_what_is_damaged_is_absent_and_not_corrupt(
    house: House, damage: Damage
) -> None:
    await damage.plant(house)
    async with house.open(upstream=False) as composition:
        verified = await verify(composition.upkeep, repair=True)
        lost = [finding for finding in verified.findings if finding.outcome == "lost"]
        gone = [] if damage.path is None else [damage.path]
        assert len(lost) == verified.summary.lost == verified.summary.unrepaired == len(gone)
        for finding in lost:
            assert "no substituter has it" in finding.reason
        again = await verify(composition.upkeep)
        assert again.findings == [], again.findings
        for name in gone:
            assert await composition.path_infos.describe(house.store_path(name).hash) is None
        await house.assert_served(composition, house.paths.keys() - set(gone))


async def test_a_stray_file_is_no_damage_and_is_removed(house: House) -> None:
    name = Digest.of(b"stray").raw.hex()
    foreign = house.state / "chunks" / name[:2] / "notes.txt"
    foreign.write_text("mine")
    async with house.open() as composition:
        # What a kill left is removed at start; after that, only a check notices.
        assert (await verify(composition.upkeep)).kinds() == {("stray", "found")}
        file = foreign.with_name(name)
        file.write_bytes(b"stray")
        found = await verify(composition.upkeep)
        assert {finding.key for finding in found.findings} == {str(file), str(foreign)}
        assert (found.summary.strays, found.summary.damaged) == (2, 0)
        repaired = await verify(composition.upkeep, repair=True)
        assert repaired.kinds() == {("stray", "removed"), ("stray", "found")}
    assert not file.exists() and foreign.exists()


async def test_one_path_is_checked_with_all_that_it_is_made_of(house: House) -> None:
    first, *_ = [await DAMAGES[name].plant(house) for name in ("flip_in_file", "flip_in_directory")]
    await DAMAGES["flip_in_chunk_row"].plant(house)
    async with house.open() as composition:
        upkeep = composition.upkeep
        assert (await verify(upkeep, house.store_path("app"))).findings == []
        # Its root cannot be read: what is below it cannot be known to be of it.
        (root, path) = (await verify(upkeep, house.store_path("library"))).findings
        assert (root.kind, path.kind) == ("directory", "path")
        repaired = await verify(upkeep, house.store_path("library"), repair=True)
        assert repaired.summary.paths == 1
        # It was put together again, and only then the chunk could be met.
        again = await verify(upkeep, house.store_path("library"), repair=True)
        assert first in {finding.key for finding in [*repaired.findings, *again.findings]}
        assert (await verify(upkeep, house.store_path("library"))).findings == []
        # Nobody asked for that one.
        assert (await verify(upkeep, house.store_path("other"))).summary.damaged == 2


async def test_a_path_that_is_not_here_is_absent(house: House) -> None:
    for wanted in (StorePath(b"\0" * 20, "absent"), StorePath(house.store_path("app").hash, "x")):
        async with house.open() as composition:
            with pytest.raises(AbsentPath, match=wanted.name):
                await verify(composition.upkeep, wanted)


async def test_what_cannot_be_read_is_neither_sound_nor_damaged_and_stays(house: House) -> None:
    file = await chunk_file(house)
    async with house.open() as composition:
        # For others who may read nothing there, too: a folder is no file.
        content = file.read_bytes()
        file.unlink()
        file.mkdir()
        verified = await verify(composition.upkeep, repair=True)
        assert {finding.outcome for finding in verified.findings} == {"unread"}
        assert verified.summary.unread == len(verified.findings) == 2
        assert not verified.summary.damaged
        file.rmdir()
        file.write_bytes(content)
        assert (await verify(composition.upkeep)).findings == []


async def test_a_path_that_cannot_be_fetched_now_is_absent_and_told(house: House) -> None:
    await DAMAGES["flip_in_path_info"].plant(house)
    (house.upstream / f"{house.store_path('other').digits}.narinfo").write_text("nonsense")
    async with house.engine() as engine:
        await engine.table("remembered").apply(
            [(key, None) for key, _ in await engine.table("remembered").scan()]
        )
    async with house.open() as composition:
        (finding,) = (await verify(composition.upkeep, repair=True)).findings
    assert (finding.kind, finding.outcome) == ("path", "failed")
    assert "could not be fetched again" in finding.reason


@pytest.mark.parametrize("max_size", [None, "6MiB"], ids=["fills", "fills and evictions"])
async def test_what_goes_on_meanwhile_is_no_finding(tmp_path: Path, max_size: str | None) -> None:
    paths = [make_path(f"path-{number}", None, tree(number)) for number in range(12)]
    house = House(tmp_path, paths)
    async with house.open(max_size=max_size) as composition:
        checks = 0

        async def fill() -> None:
            for path in paths:
                await composition.path_infos.get(path.narinfo.store_path.hash)

        filling = asyncio.create_task(fill())
        while not filling.done():
            verified = await verify(composition.upkeep, repair=checks % 2 == 1)
            assert verified.findings == []
            checks += 1
        await filling
        assert checks > 1
        verified = await verify(composition.upkeep)
        assert verified.findings == []
        evicted = composition.metrics.registry.get_sample_value("tvixstore_evictions_total")
        assert bool(evicted) == (max_size is not None)
        assert verified.summary.paths + (evicted or 0) == 12
        await house.assert_served(composition)


async def test_a_check_that_is_given_up_ends_at_once_and_makes_room_for_the_next(
    house: House,
) -> None:
    async with house.open() as composition:
        upkeep = composition.upkeep
        assert upkeep is not None
        reached = asyncio.Event()
        ended = asyncio.Event()

        async def endless(*_: object) -> None:
            reached.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BlobScrub, "_lists", endless)
            events = upkeep.verify(VerifyRequest())
            assert isinstance(await anext(events), Progress)
            await reached.wait()
            with pytest.raises(Unavailable, match="already"):
                await verify(upkeep)
            await events.aclose()
        assert ended.is_set()
        assert (await verify(upkeep)).findings == []


async def test_progress_is_told_while_anything_takes_long(house: House) -> None:
    async with house.open() as composition:
        upkeep = composition.upkeep
        assert upkeep is not None
        go_on = asyncio.Event()

        async def slow(*_: object) -> None:
            await go_on.wait()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BlobScrub, "_lists", slow)
            async with aclosing(upkeep.verify(VerifyRequest())) as events:
                first = await anext(events)
                second = await anext(events)
                assert isinstance(first, Progress) and first == second
                assert (first.phase, first.done, first.total) == ("files", 256, 256)
                go_on.set()
                assert isinstance([event async for event in events][-1], Summary)


class Wrong:
    """Accounts that do not add up until they were counted anew."""

    def __init__(self) -> None:
        self.lines = ["blob b3:00: counted 2 references, there are 1", "size of rows: off by 5"]

    async def check(self) -> list[str]:
        return self.lines

    async def rebuild(self) -> None:
        self.lines = []


async def test_counts_that_do_not_add_up_are_found_and_counted_anew(house: House) -> None:
    async with house.open() as composition:
        upkeep = composition.upkeep
        assert isinstance(upkeep, LocalUpkeep)
        upkeep.holdings.accounts = Wrong()
        found = await verify(upkeep)
        assert [(each.kind, each.key, each.outcome) for each in found.findings] == [
            ("counts", "blob b3:00", "found"),
            ("counts", "size of rows", "found"),
        ]
        repaired = await verify(upkeep, repair=True)
        assert repaired.kinds() == {("counts", "rewritten")} and not repaired.summary.unrepaired
        assert (await verify(upkeep)).findings == []


async def test_a_directory_whose_children_are_still_to_come_stays(house: House) -> None:
    later = b"comes later"
    directory = Directory.of([(b"file", FileNode(Digest.of(later), len(later)))])
    async with house.open() as composition:
        await composition.content.directories.put(directory)
        assert (await verify(composition.upkeep, repair=True)).findings == []
        await composition.content.blobs.put(later)
        assert await composition.content.directories.get(directory.digest) is not None
    async with house.open() as composition:
        assert (await verify(composition.upkeep, repair=True)).findings == []


# Directories of paths that are kept elsewhere, and whose blobs are elsewhere too.
DIRECTORIES_ALONE = """
[directoryservices.root]
type = "local"
path = "./state"
[blobservices.root]
type = "cache"
near = "disk"
far = "office"
[blobservices.disk]
type = "local"
path = "./state"
[blobservices.office]
type = "memory"
[pathinfoservices.root]
type = "memory"
"""


async def test_directories_stay_whose_blobs_are_meant_to_be_elsewhere(tmp_path: Path) -> None:
    directory = Directory.of([(b"file", FileNode(Digest.of(b"far"), 3))])
    config = load_text(DIRECTORIES_ALONE, "compose.toml", tmp_path)
    async with await Composition.open(config) as composition:
        await composition.content.directories.put(directory)
    async with await Composition.open(config) as composition:
        assert (await verify(composition.upkeep, repair=True)).findings == []
        assert await composition.content.directories.get(directory.digest) is not None
