"""Pinning: what is kept of a closure, what is fetched for it, and what becomes of failures."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from tests.nar.trees import File
from tests.support.caches import MadePath, make_path
from tests.upkeep.house import House, tree, verify
from tvixstore.compose import load_text
from tvixstore.compose.composition import Composition
from tvixstore.errors import AbsentPath, Unavailable, Unsupported
from tvixstore.kv import PATH
from tvixstore.nix import StorePath
from tvixstore.pathinfo import Pins
from tvixstore.upkeep import LocalUpkeep, PinRequest

if TYPE_CHECKING:
    from pathlib import Path

    from tvixstore.upkeep import Pinned, Upkeep


def closure() -> list[MadePath]:
    """One that needs two, of which one needs the other, and itself."""
    lowest = make_path("lowest", None, File(b"lowest"))
    lowest_path = lowest.narinfo.store_path
    itself = StorePath(make_path("middle", None).narinfo.store_path.hash, "middle")
    middle = make_path("middle", None, File(b"middle"), references=[lowest_path, itself])
    top = make_path("top", None, File(b"top"), references=[middle.narinfo.store_path, lowest_path])
    return [lowest, middle, top]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, closure())


async def listed(upkeep: Upkeep | None) -> list[Pinned]:
    assert upkeep is not None
    async with aclosing(upkeep.pins()) as pins:
        return [pinned async for pinned in pins]


async def pin(
    upkeep: Upkeep | None, path: StorePath, comment: str | None = None, *, fetch: bool = True
) -> Pinned | None:
    assert upkeep is not None
    return await upkeep.pin(PinRequest(path, comment, fetch))


async def test_pinning_fetches_the_closure_and_outlasts_a_restart(house: House) -> None:
    top = house.store_path("top")
    size = sum(path.narinfo.nar_size for path in house.paths.values())
    async with house.open() as composition:
        pinned = await pin(composition.upkeep, top, "for the release")
        assert pinned is not None
        assert (pinned.paths, pinned.nar_size, pinned.fetched) == (3, size, 3)
        assert pinned.missing == ()
    async with house.open(upstream=False) as composition:
        (found,) = await listed(composition.upkeep)
        assert found.pin == pinned.pin and found.pin.comment == "for the release"
        assert (found.paths, found.nar_size) == (3, size)
        # All of it is really here.
        await house.assert_served(composition)
        again = await pin(composition.upkeep, top)
        assert again is not None and again.pin == pinned.pin and again.fetched == 0
        assert composition.upkeep is not None and await composition.upkeep.unpin(top)
        assert not await composition.upkeep.unpin(top)
        assert await listed(composition.upkeep) == []


async def test_what_a_pin_keeps_is_held_against_whoever_chose_it_before(house: House) -> None:
    await house.fill()
    async with house.open() as composition:
        assert isinstance(composition.upkeep, LocalUpkeep)
        holds = composition.upkeep.holdings.holds
        assert holds is not None
        hashes = [path.narinfo.store_path.hash for path in house.paths.values()]
        assert not any(holds.is_held(PATH + each) for each in hashes)
        pinned = await pin(composition.upkeep, house.store_path("top"))
        assert pinned is not None and pinned.paths == len(hashes)
        assert all(holds.is_held(PATH + each) for each in hashes)


async def test_without_fetching_only_what_is_here_is_kept_and_the_rest_is_told(
    house: House,
) -> None:
    await house.fill("top")
    async with house.open() as composition:
        pinned = await pin(composition.upkeep, house.store_path("top"), fetch=False)
        assert pinned is not None and pinned.paths == 1 and pinned.fetched == 0
        assert {path.name for path in pinned.missing} == {"middle", "lowest"}
        assert await pin(composition.upkeep, house.store_path("middle"), fetch=False) is None


async def test_a_path_that_nobody_has_or_of_another_name_is_absent(house: House) -> None:
    async with house.open() as composition:
        wrong = StorePath(house.store_path("top").hash, "other-name")
        for path in (StorePath(b"\0" * 20, "nowhere"), wrong):
            assert await pin(composition.upkeep, path) is None
        await house_has(composition.upkeep)


async def house_has(upkeep: Upkeep | None, *names: str) -> None:
    assert [pinned.pin.store_path.name for pinned in await listed(upkeep)] == list(names)


async def test_a_closure_that_is_not_to_be_had_is_not_pinned(house: House) -> None:
    digits = house.store_path("lowest").digits
    (house.upstream / f"{digits}.narinfo").unlink()
    async with house.open() as composition:
        with pytest.raises(AbsentPath, match="needs .*lowest, which nobody has"):
            await pin(composition.upkeep, house.store_path("top"))
        await house_has(composition.upkeep)
        # One that was pinned before stays.
        assert await pin(composition.upkeep, house.store_path("top"), fetch=False) is not None
        with pytest.raises(AbsentPath):
            await pin(composition.upkeep, house.store_path("top"))
        await house_has(composition.upkeep, "top")


async def test_an_upstream_that_cannot_say_leaves_nothing_pinned(house: House) -> None:
    digits = house.store_path("lowest").digits
    narinfo = house.upstream / f"{digits}.narinfo"
    narinfo.unlink()
    narinfo.mkdir()
    async with house.open() as composition:
        with pytest.raises(Unavailable):
            await pin(composition.upkeep, house.store_path("top"))
        await house_has(composition.upkeep)


async def test_listing_pins_is_no_read_of_their_paths(house: House) -> None:
    await house.fill("top")
    async with house.engine() as engine:
        await Pins(engine.table("pins")).add(house.store_path("top"))
        access = engine.table("access")
        await access.apply([(key, None) for key, _ in await access.scan()])
    async with house.open() as composition:
        await house_has(composition.upkeep, "top")
    async with house.engine() as engine:
        assert await engine.table("access").scan() == []


async def test_a_composition_without_path_infos_at_its_state_has_nothing_to_pin(
    tmp_path: Path,
) -> None:
    memory = "".join(
        f'[{kind}.root]\ntype = "memory"\n' for kind in ("directoryservices", "pathinfoservices")
    )
    text = f'[blobservices.root]\ntype = "local"\npath = "./state"\n{memory}'
    async with await Composition.open(load_text(text, "compose.toml", tmp_path)) as composition:
        with pytest.raises(Unsupported, match="no path infos are kept"):
            await pin(composition.upkeep, StorePath(b"\0" * 20, "x"))
        with pytest.raises(Unsupported, match="no path infos are kept"):
            await listed(composition.upkeep)


# Path infos here, of which the content may be in another store.
TIERS = """
[pathinfoservices.root]
type = "local"
path = "./state"
""" + "".join(
    f"""
[{kind}.root]
type = "cache"
near = "disk"
far = "office"
[{kind}.disk]
type = "local"
path = "./state"
[{kind}.office]
type = "local"
path = "./office"
"""
    for kind in ("blobservices", "directoryservices")
)


async def test_content_behind_the_store_is_no_damage_and_comes_when_it_is_pinned(
    tmp_path: Path,
) -> None:
    office = House(tmp_path / "far", [make_path("tiered", None, tree(7))])
    path = office.store_path("tiered")
    async with office.open() as composition:
        info = await composition.path_infos.get(path.hash)
        assert info is not None
    office.state.rename(tmp_path / "office")
    async with await Composition.open(load_text(TIERS, "compose.toml", tmp_path)) as composition:
        await composition.path_infos.put(info)
        before = await verify(composition.upkeep, repair=True)
        assert before.findings == [] and before.summary.partial == 1
        pinned = await pin(composition.upkeep, path)
        assert pinned is not None and pinned.paths == 1
        after = await verify(composition.upkeep)
        assert after.findings == [] and after.summary.partial == 0
        assert after.summary.directories == 3
