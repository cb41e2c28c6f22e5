"""Binary caches as targets: what is written where, in which order, and what happens to refusals."""

from __future__ import annotations

import asyncio
import hashlib
import lzma
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from tests.pathinfo.samples import KEYS, STRANGER, TRUSTED, Sample
from tests.support.put_server import PutServer, Refusal
from tests.transfer.stores import Store, Two, names_of, two_stores, wanted
from tvixstore.errors import CorruptData, ReadOnly, Unavailable, Untrusted
from tvixstore.nix import ContentAddress, NarInfo, NixHash
from tvixstore.pathinfo.nix import UpstreamSettings
from tvixstore.transfer import (
    CacheTarget,
    Compression,
    Copy,
    FolderCache,
    HttpCache,
    Trust,
)
from tvixstore.transfer.packing import INCOMING

UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "zstd": lambda data: bytes(zstandard.ZstdDecompressor().decompressobj().decompress(data)),
    "xz": lzma.decompress,
}


@asynccontextmanager
async def folder_target(
    folder: Path, source: Store, compression: Compression = "zstd", trust: Trust | None = None
) -> AsyncIterator[CacheTarget]:
    settings = UpstreamSettings(url=f"file://{folder}", name="folder")
    cache = FolderCache(settings, source.pools)
    try:
        await cache.prepare()
        yield CacheTarget("the folder", cache, source.pools, compression, trust or Trust())
    finally:
        await cache.aclose()


@asynccontextmanager
async def http_target(
    url: str, source: Store, incoming: Path, token: Path | None = None
) -> AsyncIterator[CacheTarget]:
    os.makedirs(incoming, exist_ok=True)
    settings = UpstreamSettings(url=url, name="server", token_file=token, stall_timeout=5.0)
    cache = HttpCache(settings, source.pools, incoming)
    try:
        await cache.prepare()
        yield CacheTarget("the server", cache, source.pools)
    finally:
        await cache.aclose()


async def pair(two: Two) -> tuple[Sample, Sample]:
    leaf = await two.source.add("leaf", {b"bin": {b"leaf": b"#!/bin/sh\n" * 1000}})
    return leaf, await two.source.add("top", b"top", [leaf], itself=True)


def files_below(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


async def packing(folder: Path) -> None:
    """Returns once there is a file in `folder`."""
    while not os.listdir(folder):  # noqa: ASYNC110
        await asyncio.sleep(0)


def narinfo_in(folder: Path, sample: Sample) -> NarInfo:
    return NarInfo.parse((folder / f"{sample.info.store_path.digits}.narinfo").read_text())


@pytest.mark.parametrize("compression", ["none", "zstd", "xz"])
async def test_a_folder_gets_what_nix_would_write(tmp_path: Path, compression: Compression) -> None:
    folder = tmp_path / "made" / "on the way"
    async with two_stores() as two:
        leaf, top = await pair(two)
        async with folder_target(folder, two.source, compression) as target:
            copying = Copy(two.source.source, target)
            await copying.run(wanted(top))
        assert names_of(copying, "copied") == ["leaf", "top"]
        assert "StoreDir: /nix/store\n" in (folder / "nix-cache-info").read_text()
        for sample in (leaf, top):
            narinfo = narinfo_in(folder, sample)
            packed = (folder / narinfo.url).read_bytes()
            assert UNPACK[compression](packed) == sample.nar
            assert narinfo.compression == compression
            assert narinfo.file_size == len(packed)
            assert narinfo.file_hash is not None
            assert str(narinfo.file_hash).removeprefix("sha256:") in narinfo.url
            assert narinfo.references == sample.info.references
            assert narinfo.signatures == sample.info.signatures
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        assert len(files) == 5
        assert all(path.stat().st_mode & 0o777 == 0o644 for path in files)


async def test_what_a_folder_has_is_skipped_and_its_nars_are_kept(tmp_path: Path) -> None:
    async with two_stores() as two:
        leaf, top = await pair(two)
        async with folder_target(tmp_path, two.source) as target:
            await Copy(two.source.source, target).run(wanted(leaf))
            nar = tmp_path / narinfo_in(tmp_path, leaf).url
            before = nar.stat().st_ino
            # As if it had been broken off before the narinfo.
            (tmp_path / f"{leaf.info.store_path.digits}.narinfo").unlink()
            again = Copy(two.source.source, target)
            await again.run(wanted(top))
            assert names_of(again, "copied") == ["leaf", "top"]
            assert nar.stat().st_ino == before
            last = Copy(two.source.source, target)
            await last.run(wanted(top))
        assert names_of(last, "skipped") == ["leaf", "top"]


async def test_a_folder_of_another_store_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "nix-cache-info").write_text("StoreDir: /elsewhere\n")
    async with two_stores() as two:
        with pytest.raises(CorruptData, match="its store is /elsewhere"):
            async with folder_target(tmp_path, two.source):
                pass


async def test_files_left_behind_long_ago_are_swept_and_young_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "nar").mkdir()
    old, young = tmp_path / "nar" / f"{INCOMING}old", tmp_path / "nar" / f"{INCOMING}young"
    old.touch()
    young.touch()
    long_ago = time.time() - 2 * 86400
    os.utime(old, (long_ago, long_ago))
    async with two_stores() as two, folder_target(tmp_path, two.source):
        assert not old.exists()
        assert young.exists()


async def test_a_nar_that_is_not_the_promised_one_leaves_nothing(tmp_path: Path) -> None:
    async with two_stores() as two:
        path = await two.source.add("path", b"what was signed")
        two.source.blobs.blobs[next(d for d, b in two.source.blobs.blobs.items() if b)] = b"x" * 15
        async with folder_target(tmp_path, two.source) as target:
            with pytest.raises(CorruptData, match="the NAR that came has"):
                await Copy(two.source.source, target).run(wanted(path))
    assert files_below(tmp_path) == ["nix-cache-info"]


async def test_being_cancelled_while_a_nar_is_packed_leaves_no_file(tmp_path: Path) -> None:
    async with two_stores() as two:
        path = await two.source.add("path", os.urandom(8 << 20))
        async with folder_target(tmp_path, two.source, "xz") as target:
            running = asyncio.create_task(Copy(two.source.source, target).run(wanted(path)))
            await packing(tmp_path / "nar")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert list((tmp_path / "nar").iterdir()) == []


async def test_without_a_trusted_signature_nothing_is_written(tmp_path: Path) -> None:
    async with two_stores() as two:
        strange = await two.source.add("strange", b"x", signers=[STRANGER])
        signed = await two.source.add("signed", b"y", signers=[TRUSTED])
        async with folder_target(tmp_path, two.source, trust=Trust(KEYS)) as target:
            with pytest.raises(Untrusted):
                await Copy(two.source.source, target).run(wanted(strange))
            await Copy(two.source.source, target).run(wanted(signed))
        url = narinfo_in(tmp_path, signed).url
        narinfo = f"{signed.info.store_path.digits}.narinfo"
        assert files_below(tmp_path) == sorted([narinfo, url, "nix-cache-info"])


async def test_a_server_gets_the_nar_before_its_narinfo_and_references_first(
    tmp_path: Path,
) -> None:
    async with two_stores() as two, PutServer(tmp_path / "server") as server:
        leaf, top = await pair(two)
        async with http_target(server.url, two.source, tmp_path / "incoming") as target:
            await Copy(two.source.source, target, jobs=1).run(wanted(top))
            assert list((tmp_path / "incoming").iterdir()) == []
        put = server.asked("PUT")
        assert put[0] == "/nix-cache-info"
        narinfos = [f"/{each.info.store_path.digits}.narinfo" for each in (leaf, top)]
        assert [each for each in put if each.endswith(".narinfo")] == narinfos
        for sample, narinfo in zip((leaf, top), narinfos, strict=True):
            url = narinfo_in(server.folder, sample).url
            assert put.index(f"/{url}") < put.index(narinfo)
            packed = (server.folder / url).read_bytes()
            found = narinfo_in(server.folder, sample).file_hash
            assert found == NixHash("sha256", hashlib.sha256(packed).digest())


async def test_a_nar_that_a_server_has_is_not_sent_again(tmp_path: Path) -> None:
    async with two_stores() as two, PutServer(tmp_path / "server") as server:
        leaf, _ = await pair(two)
        async with http_target(server.url, two.source, tmp_path / "incoming") as target:
            await Copy(two.source.source, target).run(wanted(leaf))
            url = narinfo_in(server.folder, leaf).url
            (server.folder / f"{leaf.info.store_path.digits}.narinfo").unlink()
            await Copy(two.source.source, target).run(wanted(leaf))
        assert server.asked("PUT").count(f"/{url}") == 1
        assert narinfo_in(server.folder, leaf).url == url


@pytest.mark.parametrize(
    "refusal",
    [Refusal(503, {"Retry-After": "0"}), Refusal(500), Refusal(429), Refusal(0, {}, True)],
)
async def test_what_fails_for_a_while_is_sent_again(tmp_path: Path, refusal: Refusal) -> None:
    async with two_stores() as two, PutServer(tmp_path / "server") as server:
        leaf, _ = await pair(two)
        async with http_target(server.url, two.source, tmp_path / "incoming") as target:
            server.refuse("PUT", "/nar/", refusal, times=2)
            server.refuse("HEAD", "/nar/", refusal, times=1)
            await Copy(two.source.source, target).run(wanted(leaf))
        (url,) = {each for each in server.asked("PUT") if each.startswith("/nar/")}
        assert server.asked("PUT").count(url) == 3
        assert (server.folder / url[1:]).is_file()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "refuses to be written to .*token-file"),
        (403, "refuses to be written to"),
        (405, "cannot be written to"),
        (307, "follows no redirects"),
        (400, "does not take this"),
    ],
)
async def test_what_is_refused_for_good_is_said_and_not_tried_again(
    tmp_path: Path, status: int, said: str
) -> None:
    async with two_stores() as two, PutServer(tmp_path / "server") as server:
        leaf, _ = await pair(two)
        async with http_target(server.url, two.source, tmp_path / "incoming") as target:
            server.refuse("PUT", "/nar/", Refusal(status, {"Location": "http://else/"}), times=9)
            with pytest.raises(ReadOnly, match=said):
                await Copy(two.source.source, target).run(wanted(leaf))
        assert len([each for each in server.asked("PUT") if each.startswith("/nar/")]) == 1
        assert list(server.folder.glob("*.narinfo")) == []


async def test_a_server_that_never_takes_it_is_unknown_and_not_absent(tmp_path: Path) -> None:
    async with two_stores() as two, PutServer(tmp_path / "server") as server:
        leaf, _ = await pair(two)
        async with http_target(server.url, two.source, tmp_path / "incoming") as target:
            server.refuse("PUT", "/nar/", Refusal(503, {"Retry-After": "0"}), times=99)
            with pytest.raises(Unavailable, match="it answered 503"):
                await Copy(two.source.source, target).run(wanted(leaf))


async def test_credentials_go_with_every_request(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    async with two_stores() as two, PutServer(tmp_path / "server") as server:
        leaf, _ = await pair(two)
        async with http_target(
            server.url, two.source, tmp_path / "incoming", tmp_path / "token"
        ) as target:
            await Copy(two.source.source, target).run(wanted(leaf))
        assert server.authorizations == {"Bearer secret"}


async def add_flat(store: Store, name: str, said: bytes, data: bytes) -> Sample:
    """An unsigned path whose address says that it is a file with `said` in it."""
    address = ContentAddress.parse(f"fixed:{NixHash('sha256', hashlib.sha256(said).digest())}")
    sample = await store.add(name, data, signers=())
    path = address.store_path(name, [])
    info = replace(sample.info, store_path=path, ca=address)
    await store.path_infos.put(info)
    return Sample(info, sample.nar)


@pytest.mark.parametrize("compression", ["none", "zstd", "xz"])
async def test_unsigned_content_counts_if_it_hashes_to_its_address(
    tmp_path: Path, compression: Compression
) -> None:
    async with two_stores() as two:
        right = await add_flat(two.source, "right", b"content", b"content")
        wrong = await add_flat(two.source, "wrong", b"content", b"another")
        async with folder_target(tmp_path, two.source, compression, Trust(KEYS)) as target:
            await Copy(two.source.source, target).run(wanted(right))
            with pytest.raises(CorruptData, match="does not hash to its CA"):
                await Copy(two.source.source, target).run(wanted(wrong))
        assert len(list_narinfos(tmp_path)) == 1
        await two.copy(right, keys=KEYS)
        with pytest.raises(CorruptData, match="does not hash to its CA"):
            await two.copy(wrong, keys=KEYS)
        assert two.target.path_infos.put_names == ["right"]


def list_narinfos(folder: Path) -> list[str]:
    return [name for name in files_below(folder) if name.endswith(".narinfo")]
