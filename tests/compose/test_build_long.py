"""The long form as running services, and daemons among the substituters of the short one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.compose.building import building
from tests.compose.test_long import MEMORY, long
from tests.pathinfo.samples import STRANGER, TRUSTED, Sample, Tree, add, memory_content
from tests.support.served import served
from tvixstore.castore import DirectoryNode
from tvixstore.compose import Kind, load_text
from tvixstore.compose.composition import Composition
from tvixstore.compose.graph import KINDS
from tvixstore.errors import ReadOnly, Unavailable
from tvixstore.nar import NarIdentity, render
from tvixstore.nix import SecretKey

ALL_TYPES = Path(__file__).with_name("long.toml").read_text()
LOCAL = "\n".join(MEMORY.values()).replace('"memory"', '"local"\npath = "./state"')


async def test_every_type_is_built_on_every_service_that_it_is_for(tmp_path: Path) -> None:
    text = ALL_TYPES.replace("/srv/bucket", str(tmp_path / "bucket"))
    (tmp_path / "ours.sec").write_text(TRUSTED.text)
    async with building(text, tmp_path) as builder:
        makers: dict[Kind, Callable[[str], object]] = {
            "blobs": builder.blobs,
            "directories": builder.directories,
            "path_infos": builder.path_infos,
        }
        for kind in KINDS:
            for name in builder.graph.of(kind):
                assert makers[kind](name) is makers[kind](name)


async def test_nodes_with_one_path_are_one_service(tmp_path: Path) -> None:
    other = '[blobservices.other]\ntype = "local"\npath = "x/../state"\n'
    async with building(LOCAL + other, tmp_path) as builder:
        assert builder.blobs("root") is builder.blobs("other")
        digest = await builder.blobs("root").put(b"x")
        assert await builder.blobs("other").has(digest)


async def test_each_url_is_a_store_of_its_own(tmp_path: Path) -> None:
    race = '[blobservices.root]\ntype = "race"\nmembers = ["memory://", "memory://"]\n'
    async with building(long(blobservices=race), tmp_path) as builder:
        digest = await builder.blobs("root.members-2").put(b"x")
        assert not await builder.blobs("root.members-1").has(digest)
        assert await builder.blobs("root").read(digest) == b"x"


async def test_what_is_protected_takes_no_writes(tmp_path: Path) -> None:
    text = "\n".join(
        f'[{section}.root]\ntype = "readonly"\ninner = "memory://"\n' for section in MEMORY
    )
    async with building(text, tmp_path) as builder:
        with pytest.raises(ReadOnly):
            await builder.blobs("root").put(b"x")


async def test_a_peer_that_is_waited_for_has_to_be_there(tmp_path: Path) -> None:
    peer = '[blobservices.root]\ntype = "grpc"\nurl = "grpc+http://127.0.0.1:1{}"\n'
    for query in ("", "?wait-connect=0"):
        config = load_text(long(blobservices=peer.format(query)), "x", tmp_path, {})
        async with await Composition.open(config, embedded=True):
            pass
    config = load_text(long(blobservices=peer.format("?wait-connect=1")), "x", tmp_path, {})
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 cannot be reached"):
        await Composition.open(config, embedded=True)


@asynccontextmanager
async def office(folder: Path) -> AsyncIterator[tuple[Composition, str]]:
    """Another daemon, and its URL."""
    config = load_text(LOCAL, "office.toml", folder, {})
    async with served(config) as (composition, address):
        yield composition, f"grpc+http://{address}"


async def put(at: Composition, name: str, key: SecretKey = TRUSTED) -> Sample:
    tree: Tree = {b"large": bytes(2_000_000), b"dir": {b"x": b"y"}}
    sample = await add(at.content, name, tree, signers=[key])
    await at.path_infos.put(sample.info)
    return sample


def laptop(url: str, *lines: str) -> str:
    keys = f'public_keys = ["{TRUSTED.public_key}"]'
    return "\n".join(["[[substituters]]", f'url = "{url}"', *(lines or (keys,)), ""])


async def test_another_daemon_is_a_substituter(tmp_path: Path) -> None:
    """Its NARs come through, its content is read, and what was read is here when it is gone."""
    async with office(tmp_path / "office") as (at_work, url):
        sample = await put(at_work, "hello")
        config = load_text(laptop(url), "laptop.toml", tmp_path, {})
        async with await Composition.open(config) as here:
            description = await here.path_infos.describe(sample.key)
            assert description is not None and description.same_nar(sample.info)
            stream = await here.path_infos.open_nar(description)
            assert stream is not None
            assert await stream.read_all() == sample.nar
            info = await here.path_infos.get(sample.key)
            assert info == sample.info
            assert await render(here.content, sample.info.node).read_all() == sample.nar
            assert await here.path_infos.get(bytes(20)) is None
            (status,) = here.upstream_statuses()
            assert status.up
    async with await Composition.open(config) as here:
        assert await here.path_infos.get(sample.key) == sample.info
        assert await render(here.content, sample.info.node).read_all() == sample.nar
        with pytest.raises(Unavailable):
            await here.path_infos.get(bytes(19) + b"x")


async def test_another_daemon_is_not_believed(tmp_path: Path) -> None:
    async with office(tmp_path / "office") as (at_work, url):
        sample = await put(at_work, "hello", STRANGER)
        config = load_text(laptop(url), "laptop.toml", tmp_path / "a", {})
        async with await Composition.open(config) as here:
            with pytest.raises(Unavailable, match="no trusted signature"):
                await here.path_infos.get(sample.key)
        trusting = laptop(url, "unsigned = true")
        config = load_text(trusting, "laptop.toml", tmp_path / "b", {})
        async with await Composition.open(config) as here:
            assert await here.path_infos.get(sample.key) == sample.info


@pytest.mark.parametrize(("rule", "factor"), [("documented", 1), ("doubled", 2)])
async def test_directories_are_made_with_sizes_as_it_says(
    tmp_path: Path, rule: str, factor: int
) -> None:
    sample = await add(memory_content(), "hello", {b"dir": {b"x": b"y"}, b"z": b""})
    path = sample.info.store_path
    tmp_path.joinpath("x.nar").write_bytes(sample.nar)
    tmp_path.joinpath(f"{path.digits}.narinfo").write_text(
        f"StorePath: {path}\nURL: x.nar\nCompression: none\nReferences: \n"
        f"NarHash: sha256:{sample.info.nar_sha256.hex()}\nNarSize: {len(sample.nar)}\n"
    )
    text = f'[daemon]\ndirectory_sizes = "{rule}"\n'
    text += laptop(f"file://{tmp_path}", "unsigned = true")
    async with await Composition.open(load_text(text, "compose.toml", tmp_path, {})) as here:
        info = await here.path_infos.get(sample.key)
        assert info is not None
        assert isinstance(info.node, DirectoryNode)
        assert info.node.size == 3 * factor
        assert await here.nars.of(info.node) == NarIdentity(len(sample.nar), info.nar_sha256)
