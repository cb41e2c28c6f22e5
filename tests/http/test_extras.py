"""Realisations, build traces, logs and debug information at the front door."""

from __future__ import annotations

import gzip
import json
import lzma
from typing import TYPE_CHECKING

import pytest

from tests.extras.test_documents import DRV, ID, realisation
from tests.extras.test_substituted import LoopPools
from tests.extras.upstreams import DictUpstream
from tests.http.support import client_of, front_of
from tests.http.uploading import file_name, narinfo_for, taking
from tests.support.caches import make_path
from tests.support.signing import secret_key
from tvixstore.errors import Unavailable
from tvixstore.extras import MAX_LOG_BYTES, ExtraName, ExtrasSource
from tvixstore.kv import MemoryKeyValue
from tvixstore.nix import KeyRing
from tvixstore.policy.breaker import Breaker

if TYPE_CHECKING:
    from pathlib import Path

BUILD_ID = "483bd7f7229bdb06462222e1e353e4f37e15c293"
EXTRAS = {
    f"/realisations/{ID}.doi": realisation("x", "one-1"),
    f"/build-trace-v2/{DRV}/out.doi": b'{"outPath":"%b-x","signatures":[]}' % (b"0" * 32),
    f"/log/{DRV}": b"building\n" * 40_000,
    f"/debuginfo/{BUILD_ID}.debug": b'{"archive":"../nar/x.nar","member":"lib/x"}',
}


@pytest.mark.parametrize("target", EXTRAS, ids=lambda target: target.split("/")[1])
async def test_what_was_put_is_served(target: str, tmp_path: Path) -> None:
    body = EXTRAS[target]
    async with taking(tmp_path) as here:
        assert (await here.client.get(target)).status == 404
        assert (await here.client.request("HEAD", target)).status == 404
        reply = await here.put(target, body)
        assert reply.status == 201, reply.text
        # Again, and compressed.
        packed = gzip.compress(body)
        assert (await here.put(target, packed, Content_Encoding="gzip")).status == 201
        reply = await here.client.get(target)
        assert (reply.status, reply.body) == (200, body)
        head = await here.client.request("HEAD", target)
        assert head.headers["content-length"] == str(len(body))
        kind = "text/plain" if "/log/" in target else "application/json"
        assert head.headers["content-type"].startswith(kind)
        assert (await here.client.request("POST", target)).headers["allow"] == "GET, HEAD, PUT"


async def test_debug_information_is_served_under_both_names(tmp_path: Path) -> None:
    async with taking(tmp_path) as here:
        put = await here.put(f"/debuginfo/{BUILD_ID}", b'{"archive":"a","member":"b"}')
        assert put.status == 201
        assert (await here.client.get(f"/debuginfo/{BUILD_ID}.debug")).status == 200


async def test_a_log_is_replaced_and_comes_as_text(tmp_path: Path) -> None:
    async with taking(tmp_path) as here:
        for log in (b"first try", lzma.compress(b"second try"), b""):
            assert (await here.put(f"/log/{DRV}", log)).status == 201
            reply = await here.client.get(f"/log/{DRV}")
            expected = lzma.decompress(log) if log.startswith(b"\xfd7z") else log
            assert (reply.status, reply.body) == (200, expected)


@pytest.mark.parametrize(
    ("target", "body", "status"),
    [
        ("/realisations/x.doi", b"{}", 400),
        (f"/realisations/{ID}.doi", b"{}", 400),
        (f"/realisations/{ID}.doi", b"[" * 100_000, 400),
        (f"/realisations/{ID}.doi", b" " * (300 << 10), 413),
        (f"/build-trace-v2/{DRV}/out.doi", b'{"outPath":"../x","signatures":[]}', 400),
        ("/log/..%2f..%2fx.drv", b"x", 404),
        ("/log/x", b"x", 400),
        (f"/log/{DRV}", gzip.compress(b"x" * 100, mtime=0)[:-3], 400),
        (f"/debuginfo/{BUILD_ID}", b"{}", 400),
        ("/debuginfo/xyz", b"{}", 400),
    ],
)
async def test_what_is_none_is_refused(
    target: str, body: bytes, status: int, tmp_path: Path
) -> None:
    async with taking(tmp_path) as here:
        reply = await here.put(target, body)
        assert reply.status == status, reply.text
    async with client_of(front_of(here.store.path_infos)) as client:
        assert (await client.get(target)).status in (400, 404)


async def test_a_log_that_expands_beyond_its_bound_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_LOG_BYTES == 256 << 20
    monkeypatch.setattr("tvixstore.extras.texts.MAX_LOG_BYTES", 1 << 20)
    async with taking(tmp_path) as here:
        reply = await here.put(f"/log/{DRV}", lzma.compress(bytes(3 << 20)))
        assert (reply.status, "at most 1048576 bytes" in reply.text) == (413, True)
        assert (await here.client.get(f"/log/{DRV}")).status == 404


async def test_a_realisation_of_another_path_is_a_conflict(tmp_path: Path) -> None:
    target = f"/realisations/{ID}.doi"
    async with taking(tmp_path) as here:
        assert (await here.put(target, realisation("x", "one-1"))).status == 201
        assert (await here.put(target, realisation("x", "two-1"))).status == 201
        reply = await here.put(target, realisation("y", "one-1"))
        assert (reply.status, "is here as" in reply.text) == (409, True)
        kept = (await here.client.get(target)).body
    assert kept == realisation("x", "one-1", "two-1")


async def test_where_signatures_are_required_realisations_need_them_too(tmp_path: Path) -> None:
    target = f"/realisations/{ID}.doi"
    required = KeyRing([secret_key("ours-1").public_key])
    async with taking(tmp_path, required=required) as here:
        reply = await here.put(target, realisation("x", "theirs-1"))
        assert (reply.status, "no trusted signature" in reply.text) == (403, True)
        assert (await here.put(target, realisation("x", "theirs-1", "ours-1"))).status == 201
        # Nobody can sign a log.
        assert (await here.put(f"/log/{DRV}", b"x")).status == 201


async def test_extras_are_there_after_a_restart(tmp_path: Path) -> None:
    kept = MemoryKeyValue()
    async with taking(tmp_path, kept=kept) as before:
        for target, body in EXTRAS.items():
            await before.put(target, body)
    async with taking(tmp_path, kept=kept) as after:
        after.store.blobs.blobs.update(before.store.blobs.blobs)
        for target, body in EXTRAS.items():
            assert (await after.client.get(target)).body == body


async def test_substituters_are_asked_and_what_they_cannot_say_is_503(tmp_path: Path) -> None:
    log = ExtraName.log(DRV).path
    upstream = DictUpstream({log: Unavailable("it is down")})
    pools = LoopPools()
    plain = ExtrasSource("plain", upstream, None, pools)
    async with taking(tmp_path, classes=[[plain]]) as here:
        reply = await here.client.get(f"/{log}")
        assert (reply.status, "it is down" in reply.text) == (503, True)
        assert "retry-after" in reply.headers
        upstream.files[log] = b"built there"
        assert (await here.client.get(f"/{log}")).body == b"built there"
        upstream.files.clear()
        assert (await here.client.get(f"/{log}")).body == b"built there"
    upstream.files[log] = Unavailable("it is down")
    optional = ExtrasSource("community", upstream, None, pools, Breaker(1), optional=True)
    other = ExtrasSource("main", DictUpstream(), None, pools)
    async with taking(tmp_path, classes=[[optional], [other]]) as here:
        reply = await here.client.get(f"/{log}")
        assert (reply.status, reply.headers["x-tvix-skipped"]) == (404, "community")


async def test_the_link_of_debug_information_leads_to_the_nar_that_was_uploaded(
    tmp_path: Path,
) -> None:
    path = make_path("debugged", None)
    file = lzma.compress(path.nar)
    name = file_name(file, ".xz")
    target = f"/debuginfo/{BUILD_ID}.debug"
    link = json.dumps({"archive": f"../nar/{name}", "member": "lib/x.debug"}).encode()
    async with taking(tmp_path) as here:
        # In the order in which Nix puts them.
        assert (await here.put(target, link)).status == 201
        assert (await here.put(f"/nar/{name}", file)).status == 201
        narinfo = narinfo_for(path, f"nar/{name}", "xz", file)
        assert (await here.put(path.narinfo_target, narinfo)).status == 201
        archive = json.loads((await here.client.get(target)).body)["archive"]
        nar = await here.fetch(f"/debuginfo/{archive}")
    assert lzma.decompress(nar) == path.nar
