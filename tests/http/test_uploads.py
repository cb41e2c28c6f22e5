"""Uploads: what is taken, what is refused and with which words, and what is then served."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import lzma
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import brotli
import lz4.frame
import pytest
import zstandard

from tests.http.support import client_of, counted, front_of
from tests.http.uploading import Clock, file_name, narinfo_for, taking
from tests.nar.trees import File
from tests.support.caches import make_path, signed
from tests.support.signing import SECRET_KEY
from tests.support.virtual_clock import virtual_clock
from tvixstore.access import Access
from tvixstore.castore import SymlinkNode
from tvixstore.compression import decoder
from tvixstore.errors import ReadOnly, StorageFull, Unavailable, Untrusted
from tvixstore.kv import MemoryKeyValue
from tvixstore.nix import ContentAddress, NarInfo, NixHash, StorePath, nixbase32
from tvixstore.pathinfo import (
    CachedPathInfoService,
    MemoryPathInfoService,
    NegativePathInfoService,
    PathInfo,
)
from tvixstore.pathinfo.upload_rows import Upload
from tvixstore.pathinfo.uploads import Uploads
from tvixstore.policy.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.nar.trees import Tree
    from tvixstore.http import HttpFront


COMPRESS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "none": ("", lambda data: data),
    "xz": (".xz", lzma.compress),
    "lzma": ("", lambda data: lzma.compress(data, lzma.FORMAT_ALONE)),
    "zstd": (".zst", zstandard.ZstdCompressor().compress),
    "bzip2": (".bz2", bz2.compress),
    "gzip": ("", gzip.compress),
    "br": (".br", brotli.compress),
    "lz4": (".lz4", lz4.frame.compress),
}
TREE: Tree = {
    b"bin": {b"tool": File(b"#!/bin/sh\n", executable=True)},
    b"data": File(bytes(range(256)) * 2000),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
@pytest.mark.parametrize("compression", COMPRESS)
async def test_a_nar_comes_in_any_compression_and_goes_out_under_both_names(
    compression: str, chunked: bool, tmp_path: Path
) -> None:
    suffix, compress = COMPRESS[compression]
    path = make_path(f"in-{compression}", SECRET_KEY, TREE)
    file = compress(path.nar)
    url = f"nar/{file_name(file, suffix)}"
    async with taking(tmp_path) as here:
        assert (await here.client.request("HEAD", f"/{url}")).status == 404
        if chunked:
            here.client.send("PUT", f"/{url}", Transfer_Encoding="chunked")
            for start in range(0, len(file), 1000):
                piece = file[start : start + 1000]
                here.client.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            here.client.writer.write(b"0\r\n\r\n")
            reply = await here.client.receive()
        else:
            reply = await here.put(f"/{url}", file)
        assert reply.status == 201, reply.text
        assert (await here.client.request("HEAD", f"/{url}")).status == 200
        assert (await here.client.get(path.narinfo_target)).status == 404
        reply = await here.put(path.narinfo_target, narinfo_for(path, url, compression, file))
        assert reply.status == 201, reply.text
        ours = NarInfo.parse((await here.client.get(path.narinfo_target)).text)
        assert ours.compression == "none"
        assert ours.signatures == path.narinfo.signatures
        assert (await here.client.get(f"/{ours.url}")).body == path.nar
        again = await here.fetch(f"/{url}")
    undo = decoder("xz" if compression == "lzma" else compression)
    assert b"".join(undo.feed(again)) == path.nar
    undo.finish()


async def test_a_body_is_asked_for_if_it_is_going_to_be_taken(tmp_path: Path) -> None:
    path = make_path("asked-for", None)
    async with taking(tmp_path) as here:
        size = str(len(path.nar))
        here.client.send("PUT", path.nar_target, Content_Length=size, Expect="100-continue")
        status, headers = await here.client.read_head()
        assert (status, headers) == (100, {})
        here.client.writer.write(path.nar)
        assert (await here.client.receive()).status == 201
        # What is known to be too long is not asked for, and the connection is of no further use.
        here.client.send(
            "PUT", path.narinfo_target, Content_Length=str(2 << 20), Expect="100-continue"
        )
        reply = await here.client.receive()
    assert reply.status == 413
    assert reply.headers["connection"] == "close"


async def test_without_writes_nothing_is_taken_and_nothing_asked_for(tmp_path: Path) -> None:
    async with taking(tmp_path) as here:
        here.front.access = Access.of("read")
        for target in ("/nix-cache-info", "/nar/x.nar", f"/{'0' * 32}.narinfo"):
            reply = await here.put(target, b"")
            assert reply.status == 403
            assert "writes = true" in reply.text
    async with client_of(
        front_of(here.store.path_infos, access=Access.of("read", "write"))
    ) as client:
        client.send("PUT", "/nar/x.nar", Content_Length="9", Expect="100-continue")
        assert (await client.receive()).status == 501


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"StoreDir: /nix/store\n", 201),
        (b"StoreDir: /nix/store/\nPriority: 1\n", 201),
        (b"StoreDir: /gnu/store\n", 400),
        (b"x" * (17 << 10), 413),
    ],
)
async def test_a_cache_info_has_to_be_of_our_store(
    text: bytes, status: int, tmp_path: Path
) -> None:
    async with taking(tmp_path) as here:
        assert (await here.put("/nix-cache-info", text)).status == status
        assert "Priority: 30" in (await here.client.get("/nix-cache-info")).text


async def test_a_listing_is_read_and_made_anew(tmp_path: Path) -> None:
    path = make_path("listed", None, TREE)
    target = f"/{path.digits}.ls"
    async with taking(tmp_path) as here:
        lie = b'{"version":1,"root":{"type":"regular","size":1}}'
        assert (await here.put(target, lie)).status == 201
        assert (await here.put(target, b"no")).status == 400
        assert (await here.put(target, b'{"a":"}')).status == 400
        deep = await here.put(target, b'{"a":' * 300 + b"1" + b"}" * 300)
        assert deep.status == 400 and "200 levels" in deep.text
        assert (await here.put(target, b"{}", Content_Encoding="rot13")).status == 400
        await here.push(path)
        assert '"type":"directory"' in (await here.client.get(target)).text


@pytest.mark.parametrize("coding", ["xz", "zstd", "gzip", "br"])
async def test_content_encodings_are_undone(coding: str, tmp_path: Path) -> None:
    path = make_path("encoded", None, TREE)
    encode = COMPRESS[coding][1]
    inside = lz4.frame.compress(path.nar)
    url = f"nar/{file_name(inside, '.lz4')}"
    async with taking(tmp_path) as here:
        for target, body in (
            # The hash in its name is of the file, not of how it travelled.
            (f"/{url}", inside),
            (path.narinfo_target, narinfo_for(path, url, "lz4", inside)),
            (f"/{path.digits}.ls", b"{}"),
        ):
            reply = await here.put(target, encode(body), Content_Encoding=coding)
            assert reply.status == 201, reply.text
            broken = await here.put(target, encode(body)[:-3], Content_Encoding=coding)
            assert broken.status == 400, broken.text
        bomb = await here.put(path.narinfo_target, encode(bytes(2 << 20)), Content_Encoding=coding)
    assert bomb.status == 413


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("x.nar.lzip", b"LZIP\x01" + b"x" * 30, "lzip"),
        ("x.nar", b"\x1f\x9d\x90" + b"x" * 30, "compress"),
        ("x.nar", b"", "no NAR"),
        ("x.nar.xz", b"<html>" + b"x" * 30, "no NAR"),
        ("x.nar.br", b"this is no brotli", "damaged"),
        ("x.nar.xz", lzma.compress(b"\x0d" + bytes(7) + b"nix-archive-2" + bytes(40)), "NAR"),
        ("x.nar", make_path("cut", None).nar[:-8], ""),
        ("x.nar", make_path("more", None).nar + bytes(8), ""),
        ("x.nar.xz", lzma.compress(make_path("cut", None).nar)[:-4], "damaged"),
        ("0" * 52 + ".nar", make_path("misnamed", None).nar, "called by another hash"),
        ("0" * 64 + ".nar.xz", lzma.compress(make_path("misnamed", None).nar), "another hash"),
        ("na%c3%afve.nar", make_path("named", None).nar, "ASCII"),
        ("na%c3%afve-as-well.nar", make_path("named", None).nar, "ASCII"),
        ("n" * 401, make_path("long", None).nar, "400 bytes"),
    ],
)  # fmt: skip
async def test_what_is_no_nar_is_refused_with_the_reason(
    name: str, body: bytes, reason: str, tmp_path: Path
) -> None:
    async with taking(tmp_path) as here:
        reply = await here.put(f"/nar/{name}", body)
        assert reply.status == 400
        assert reason in reply.text
        assert (await here.client.request("HEAD", f"/nar/{name}")).status in (400, 404)


async def cancelled(front: HttpFront) -> None:
    """Returns once an upload of a NAR was given up."""
    async with asyncio.timeout(10):
        while not counted(front, "requests_total", route="nar", status="499", answer="cancelled"):
            for _ in range(10):
                await asyncio.sleep(0)


@pytest.mark.parametrize("name", ["of-the-client.nar", "of-the-client.nar.zst", "plain.nar.zst"])
async def test_a_nar_has_whatever_name_its_client_gave_it(name: str, tmp_path: Path) -> None:
    path = make_path("named", None, TREE)
    compression = "zstd" if name.endswith(".zst") else "none"
    file = COMPRESS[compression][1](path.nar)
    async with taking(tmp_path) as here:
        assert (await here.client.request("HEAD", f"/nar/{name}")).status == 404
        assert (await here.put(f"/nar/{name}", file)).status == 201
        assert (await here.client.request("HEAD", f"/nar/{name}")).status == 200
        text = narinfo_for(path, f"nar/{name}", compression, file)
        assert (await here.put(path.narinfo_target, text)).status == 201
        undo = decoder(compression)
        assert b"".join(undo.feed(await here.fetch(f"/nar/{name}"))) == path.nar


async def test_a_name_that_is_no_hash_may_be_of_another_nar_tomorrow(tmp_path: Path) -> None:
    one, two = make_path("one", None), make_path("two", None, size=2000)
    async with taking(tmp_path) as here:
        for path in (one, two):
            for target in ("/nar/of-mine.nar", path.nar_target):
                assert (await here.put(target, path.nar)).status == 201
            mine = await here.client.get("/nar/of-mine.nar")
            named = await here.client.get(path.nar_target)
            assert mine.headers["cache-control"] == "no-cache"
            assert named.headers["cache-control"].endswith("immutable")
            assert mine.headers["etag"] == named.headers["etag"]


@pytest.mark.parametrize("target", ["/nar/x.nar", "/nix-cache-info", f"/log/{'0' * 32}-x.drv"])
async def test_a_tower_of_content_encodings_is_refused(target: str, tmp_path: Path) -> None:
    async with taking(tmp_path) as here:
        reply = await here.put(target, b"", Content_Encoding=",".join(["gzip"] * 1100))
    assert reply.status == 400
    assert reply.text.startswith("Content-Encoding: 1100 codings on top of each other")


async def test_a_nar_that_breaks_off_leaves_nothing_and_comes_again(tmp_path: Path) -> None:
    path = make_path("broken-off", None, TREE)
    async with taking(tmp_path) as here:
        directories = dict(here.store.directories.directories)
        async with client_of(here.front) as leaving:
            leaving.send("PUT", path.nar_target, Content_Length=str(len(path.nar)))
            leaving.writer.write(path.nar[: len(path.nar) // 2])
            await leaving.writer.drain()
        await cancelled(here.front)
        assert here.store.directories.directories == directories
        assert (await here.client.request("HEAD", path.nar_target)).status == 404
        assert (await here.push(path)).status == 201


async def test_a_narinfo_whose_content_was_lost_is_refused_and_its_nar_taken_again(
    tmp_path: Path,
) -> None:
    path = make_path("lost", None, TREE)
    async with taking(tmp_path) as store:
        assert (await store.put(path.nar_target, path.nar)).status == 201
        directories = store.store.directories
        lost = dict(directories.directories)
        directories.directories.clear()
        reply = await store.put(path.narinfo_target, path.text)
        assert reply.status == 400 and "upload that again" in reply.text
        assert lost and (await store.push(path)).status == 201


async def test_a_narinfo_before_its_nar_is_refused(tmp_path: Path) -> None:
    path = make_path("early", None)
    async with taking(tmp_path) as here:
        reply = await here.put(path.narinfo_target, path.text)
        assert reply.status == 400
        assert "upload that first" in reply.text
        assert (await here.client.get(path.narinfo_target)).status == 404
        assert (await here.push(path)).status == 201


async def test_a_late_narinfo_is_taken_for_a_day(tmp_path: Path) -> None:
    path, later = make_path("late", None), make_path("too-late", None, size=2000)
    async with taking(tmp_path) as here:
        for each in (path, later):
            await here.put(each.nar_target, each.nar)
        here.clock.seconds += 23.5 * 3600
        # Whoever asks now shall upload it again: its narinfo might come too late.
        assert (await here.client.request("HEAD", path.nar_target)).status == 404
        assert (await here.put(path.narinfo_target, path.text)).status == 201
        here.clock.seconds += 3600
        reply = await here.put(later.narinfo_target, later.text)
        assert (reply.status, "kept for a day" in reply.text) == (400, True)
        # What was accepted stays known by its file.
        assert (await here.client.request("HEAD", path.nar_target)).status == 200
        await here.uploads.sweep()
        assert await here.uploads.find(later.nar_target.removeprefix("/nar/")) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nar_sha256": bytes(32)}, "its NarHash is sha256:"),
        ({"nar_size": 7}, "its NarSize is 7"),
        ({"compression": "xz"}, "its Compression is xz"),
        ({"file_hash": NixHash("sha256", bytes(32))}, "its FileHash is"),
        ({"file_hash": NixHash("md5", bytes(16))}, "its FileHash is"),
        ({"file_hash": NixHash("sha256", bytes(32)), "file_size": 3}, "its File"),
        ({"url": "nar/other.nar"}, "nar/other.nar, is not here"),
        ({"url": "https://elsewhere.example/x.nar"}, "is not here"),
        ({"store_path": StorePath(bytes(20), "other")}, "not of"),
        ({"ca": ContentAddress("recursive", NixHash("sha256", bytes(32)))}, "its CA"),
        ({"ca": ContentAddress("text", NixHash("sha256", bytes(32)))}, "its CA"),
    ],
)  # fmt: skip
async def test_a_narinfo_that_says_what_is_not_so_is_refused(
    change: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = make_path("lied-about", SECRET_KEY)
    async with taking(tmp_path) as here:
        await here.put(path.nar_target, path.nar)
        told = replace(path.narinfo, **change)  # type: ignore[arg-type]
        reply = await here.put(path.narinfo_target, str(told).encode())
        assert (reply.status, reason in reply.text) == (400, True), reply.text
        assert (await here.client.get(path.narinfo_target)).status == 404


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"StorePath: x\n",
        b"x" * 200,
        make_path("odd", None).text + b"Sig: nobody:AAAA\n",
        make_path("odd", None).text + b"References: a\n",
        make_path("odd", None).text.replace(b"/nix/store", b"/gnu/store"),
    ],
)
async def test_what_is_no_narinfo_is_refused(text: bytes, tmp_path: Path) -> None:
    path = make_path("odd", None)
    async with taking(tmp_path) as here:
        await here.put(path.nar_target, path.nar)
        assert (await here.put(path.narinfo_target, text)).status == 400


async def test_references_need_not_be_here(tmp_path: Path) -> None:
    path = make_path("refers", None, references=[StorePath(bytes(20), "nowhere")])
    async with taking(tmp_path) as here:
        assert (await here.push(path)).status == 201
        assert "-nowhere" in (await here.client.get(path.narinfo_target)).text


async def test_another_nar_for_a_path_is_a_conflict_and_the_same_one_is_not(
    tmp_path: Path,
) -> None:
    path, other = make_path("twice", None), make_path("twice", None, File(b"another"))
    async with taking(tmp_path) as here:
        assert (await here.push(path)).status == 201
        assert (await here.push(path)).status == 201
        reply = await here.push(other)
        assert (reply.status, "with another NAR" in reply.text) == (409, True)
        ours = (await here.client.get(path.narinfo_target)).text
        assert NarInfo.parse(ours).nar_sha256 == path.narinfo.nar_sha256


async def test_a_narinfo_of_ours_comes_back_with_a_signature(tmp_path: Path) -> None:
    path = make_path("signed-later", None)
    async with taking(tmp_path) as here:
        await here.push(path)
        ours = NarInfo.parse((await here.client.get(path.narinfo_target)).text)
        assert ours.url.startswith("nar/tvix-castore/")
        for url in (ours.url, f"nar/{path.digits}-{nixbase32.encode(ours.nar_sha256)}.nar"):
            back = signed(replace(ours, url=url), SECRET_KEY)
            assert (await here.put(path.narinfo_target, str(back).encode())).status == 201
        now = NarInfo.parse((await here.client.get(path.narinfo_target)).text)
    assert [signature.name for signature in now.signatures] == [SECRET_KEY.name]


async def test_a_second_path_with_the_same_nar_needs_no_upload(tmp_path: Path) -> None:
    path = make_path("first", None, TREE)
    second = make_path("second", None, TREE)
    async with taking(tmp_path) as here:
        await here.push(path)
        here.clock.seconds += 10 * 86_400
        assert (await here.client.request("HEAD", second.nar_target)).status == 200
        assert (await here.put(second.narinfo_target, second.text)).status == 201
        assert (await here.client.get(second.narinfo_target)).status == 200


async def test_an_absence_that_was_remembered_is_over_with_the_put(tmp_path: Path) -> None:
    path = make_path("looked-for", None)
    near, far = MemoryPathInfoService(), MemoryPathInfoService()
    services = CachedPathInfoService(near, NegativePathInfoService(far))
    for root in (services, NegativePathInfoService(services)):
        async with taking(tmp_path, path_infos=root) as here:
            near.content = here.store.content
            near.infos.clear()
            assert (await here.client.get(path.narinfo_target)).status == 404
            assert (await here.push(path)).status == 201
            assert (await here.client.get(path.narinfo_target)).status == 200
    assert not far.infos
    await services.aclose()


class Refusing(MemoryPathInfoService):
    """Puts fail with `error`."""

    error: Exception

    async def put(self, info: PathInfo) -> PathInfo:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Untrusted("nobody signed it"), 403),
        (ReadOnly("it is readonly"), 403),
        (StorageFull("no room"), 507),
        (Unavailable("the peer is away"), 503),
    ],
)
async def test_why_a_path_was_not_stored_shows_in_the_status(
    error: Exception, status: int, tmp_path: Path
) -> None:
    path = make_path("refused", None)
    refusing = Refusing()
    refusing.error = error
    async with taking(tmp_path, path_infos=refusing) as here:
        reply = await here.push(path)
        assert (reply.status, reply.text) == (status, f"{error}\n")
        assert ("retry-after" in reply.headers) == (status >= 500)
        assert (await here.client.request("HEAD", path.nar_target)).status == 200


async def test_a_nar_that_there_is_no_room_for_is_507(tmp_path: Path) -> None:
    path = make_path("large", None, size=300_000)

    async def no_room(boundaries: object = None) -> NoReturn:
        raise StorageFull("max_size is reached")

    async with taking(tmp_path) as here:
        here.store.blobs.open_write = no_room  # type: ignore[method-assign]
        reply = await here.put(path.nar_target, path.nar)
        assert (reply.status, reply.text) == (507, "max_size is reached\n")


@virtual_clock
async def test_what_expires_is_dropped_by_itself() -> None:
    clock = Clock()
    table = MemoryKeyValue()
    uploads = Uploads(table, now=clock)
    node = SymlinkNode(b"somewhere")
    await uploads.add("x.nar", Upload(
        node=node, nar_sha256=bytes(32), nar_size=1, compression="none",
        file_sha256=bytes(32), file_size=1,
    ))  # fmt: skip
    sweeping = asyncio.create_task(uploads.keep_sweeping())
    await asyncio.sleep(1)
    assert await uploads.find("x.nar") is not None
    clock.seconds += 86_401
    await asyncio.sleep(600)
    assert await table.scan(b"u") == []
    await end([sweeping])


async def test_two_uploaders_of_one_path_at_once_are_both_right(tmp_path: Path) -> None:
    path = make_path("contended", None, TREE)
    async with taking(tmp_path) as one:
        async with client_of(one.front) as client:
            two = replace(one, client=client)
            replies = await asyncio.gather(one.push(path), two.push(path))
    assert [reply.status for reply in replies] == [201, 201]


async def test_an_upload_counts_as_a_reference_exactly_as_long_as_its_row(tmp_path: Path) -> None:
    one, two = make_path("one", None), make_path("two", None, size=2000)
    async with taking(tmp_path, counted_rows=True) as here:
        counting = here.counting
        assert counting is not None
        for path in (one, two):
            for name in (path.nar_target, "/nar/of-the-client.nar", path.nar_target):
                assert (await here.put(name, path.nar)).status == 201
        assert len(counting.nodes) == 2
        here.clock.seconds += 12 * 3600
        await here.put(one.nar_target, one.nar)
        here.clock.seconds += 13 * 3600
        await here.uploads.sweep()
        assert len(counting.nodes) == 1
        found = await here.uploads.find(one.nar_target.removeprefix("/nar/"))
        assert found is not None
        here.clock.seconds += 12 * 3600
        await here.uploads.sweep()
        assert counting.nodes == {}
        # The names of the files are still known: they are not swept for a year.
        assert await here.uploads.table.scan(b"n")
        await here.uploads.learn(found, one.narinfo.store_path.hash)
        await here.uploads.aclose()
        assert await here.uploads.table.scan(b"k")
        here.clock.seconds += 366 * 86_400
        await here.uploads.sweep()
        assert await here.uploads.table.scan() == []


async def test_a_row_that_was_damaged_is_as_good_as_none(tmp_path: Path) -> None:
    path = make_path("damaged", None)
    async with taking(tmp_path) as here:
        await here.put(path.nar_target, path.nar)
        table = here.uploads.table
        assert isinstance(table, MemoryKeyValue)
        for key, row in await table.scan(b"u"):
            await table.apply([(key, row[:-1] + bytes([row[-1] ^ 1]))])
        assert (await here.client.request("HEAD", path.nar_target)).status == 404
        assert here.uploads.corrupt
        assert (await here.push(path)).status == 201
