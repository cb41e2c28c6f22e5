"""Each route, good and bad, over a real socket."""

from __future__ import annotations

import json

import pytest

from tests.http.support import (
    ABSENT,
    DescribedPaths,
    ScriptedStream,
    Store,
    client_of,
    counted,
    description_of,
    front_of,
    store_path,
)
from tvixstore.castore import SymlinkNode
from tvixstore.http import UpstreamStatus
from tvixstore.nix import NarInfo, nixbase32


async def test_nix_cache_info_names_store_and_priority() -> None:
    async with client_of(front_of(DescribedPaths(None), priority=41)) as client:
        reply = await client.get("/nix-cache-info")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/x-nix-cache-info"
    assert reply.text == "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 41\n"


async def test_a_narinfo_of_castore_content_links_its_node() -> None:
    store = await Store.filled()
    async with client_of(front_of(store.path_infos, store.content)) as client:
        reply = await client.get(f"/{store.path.digits}.narinfo")
        narinfo = NarInfo.parse(reply.text)
        nar = await client.get("/" + narinfo.url)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/x-nix-narinfo"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert narinfo.url.startswith("nar/tvix-castore/")
    assert narinfo.url.endswith(f"?narsize={len(store.path.nar)}&path={store.path.digits}")
    assert narinfo.compression == "none"
    assert narinfo.file_hash is not None
    assert narinfo.file_hash.digest == narinfo.nar_sha256 == store.path.info.nar_sha256
    assert narinfo.file_size == narinfo.nar_size == len(store.path.nar)
    assert nar.body == store.path.nar


async def test_a_narinfo_of_a_described_path_links_its_nar_by_hash() -> None:
    store = await Store.filled()
    described = DescribedPaths(description_of(store.path), ScriptedStream(store.path.nar))
    async with client_of(front_of(described)) as client:
        narinfo = NarInfo.parse((await client.get(f"/{store.path.digits}.narinfo")).text)
        nar = await client.get("/" + narinfo.url)
    digits = nixbase32.encode(store.path.info.nar_sha256)
    assert narinfo.url == f"nar/{store.path.digits}-{digits}.nar"
    assert nar.body == store.path.nar


async def test_a_narinfo_follows_what_the_service_says_now() -> None:
    store = await Store.filled()
    described = DescribedPaths(description_of(store.path))
    async with client_of(front_of(described)) as client:
        before = await client.get(f"/{store.path.digits}.narinfo")
        again = await client.get(f"/{store.path.digits}.narinfo")
        described.description = store.path.info
        after = await client.get(f"/{store.path.digits}.narinfo")
    assert before.body == again.body
    assert "tvix-castore" in after.text


async def test_a_symlink_too_long_for_a_url_keeps_the_nar_by_hash() -> None:
    store = await Store.filled()
    path = await store_path(store.path_infos, store.content, "long", SymlinkNode(b"a" * 4095))
    async with client_of(front_of(store.path_infos, store.content)) as client:
        narinfo = NarInfo.parse((await client.get(f"/{path.digits}.narinfo")).text)
        nar = await client.get("/" + narinfo.url)
    assert narinfo.url.startswith(f"nar/{path.digits}-")
    assert nar.body == path.nar


async def test_the_longest_node_in_a_url_is_served() -> None:
    store = await Store.filled()
    path = await store_path(store.path_infos, store.content, "long", SymlinkNode(b"a" * 4080))
    async with client_of(front_of(store.path_infos, store.content)) as client:
        narinfo = NarInfo.parse((await client.get(f"/{path.digits}.narinfo")).text)
        nar = await client.get("/" + narinfo.url)
    assert narinfo.url.startswith("nar/tvix-castore/")
    assert nar.body == path.nar


async def test_absent_paths_are_404_with_the_reason() -> None:
    store = await Store.filled()
    sha256 = nixbase32.encode(bytes(32))
    async with client_of(front_of(store.path_infos, store.content)) as client:
        for target in (
            f"/{ABSENT}.narinfo",
            f"/{ABSENT}.ls",
            f"/nar/{ABSENT}-{sha256}.nar",
            f"/nar/{store.path.digits}-{sha256}.nar",
        ):
            reply = await client.get(target)
            assert (reply.status, target) == (404, target)
            assert "nobody has" in reply.text
            assert reply.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "target",
    ["/", "", "/nix-cache-info/", "/nar/", "/_tvix/", "/a/b.narinfo", "/x.narinfo.", "/nar/a/b"],
)  # fmt: skip
async def test_other_paths_are_404(target: str) -> None:
    async with client_of(front_of(DescribedPaths(None))) as client:
        reply = await client.get(target or "http://cache")
    assert reply.status == 404
    assert reply.text == "nothing is served under this path\n"


@pytest.mark.parametrize(
    "target", ["/nar/" + "1" * 52 + ".nar", "/nar/tvix-castore", "/nar/a-b.nar.xz"]
)
async def test_nars_that_nobody_uploaded_are_404(target: str) -> None:
    async with client_of(front_of(DescribedPaths(None))) as client:
        reply = await client.get(target)
    assert reply.status == 404
    assert "no NAR was uploaded under this name" in reply.text


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize(
    ("target", "allowed"), [("/nix-cache-info", "GET, HEAD, PUT"), ("/healthz", "GET, HEAD")]
)
async def test_other_methods_are_405(method: str, target: str, allowed: str) -> None:
    async with client_of(front_of(DescribedPaths(None))) as client:
        reply = await client.request(method, target)
        after = await client.get("/nix-cache-info")
    assert reply.status == 405
    assert reply.headers["allow"] == allowed
    assert after.status == 200


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (f"/{ABSENT[:-1]}.narinfo", "31 digits, expected 32"),
        (f"/{'e' + ABSENT[1:]}.narinfo", "not a nixbase32 digit"),
        ("/.narinfo", "0 digits"),
        (f"/{ABSENT}x.ls", "33 digits"),
        ("/nar/tvix-castore/?narsize=1", "not base64url"),
        ("/nar/tvix-castore/a?narsize=1", "base64url"),
        ("/nar/tvix-castore/ab?narsize=1", "spare bits"),
        ("/nar/tvix-castore/YWI=?narsize=1", "not base64url"),
        ("/nar/tvix-castore/YWJj?narsize=1", ""),
        ("/nar/snix-castore/GgMSAWE", "lacks narsize"),
        ("/nar/tvix-castore/GgMSAWE?narsize=", "not a number"),
        ("/nar/tvix-castore/GgMSAWE?narsize=-1", "not a number"),
        ("/nar/tvix-castore/GgMSAWE?narsize=%D9%A1", "not a number"),
        ("/nar/tvix-castore/GgMSAWE?narsize=0", "not a number"),
        (f"/nar/tvix-castore/GgMSAWE?narsize={2**64}", "not a number"),
        ("/nar/tvix-castore/GgMSAWE?narsize=1&path=x", "1 digits"),
        ("/nar/tvix-castore/GgMSAWE?narsize=1&path=", "0 digits"),
        ("/nar/tvix-castore/GgMSAWE?" + "&".join(["a=1"] * 17), "fields"),
        ("/nar/tvix-castore/GgMSAWE?narsize=1", "has 120" ),
        ("/nar/tvix-castore/" + "A" * 5463 + "?narsize=1", "5462 at most"),
        ("/nar/tvix-castore/GgYKAW4SAWE?narsize=1", "no name"),
    ],
)  # fmt: skip
async def test_malformed_names_are_400_with_the_reason(target: str, reason: str) -> None:
    async with client_of(front_of(DescribedPaths(None))) as client:
        reply = await client.get(target)
    assert reply.status == 400, reply.text
    assert reason in reply.text


@pytest.mark.parametrize("name", [f"{ABSENT}-{'0' * 51}", f"{ABSENT}-{'z' * 52}", "-", "x-y"])
async def test_what_is_not_called_as_our_nars_are_is_a_file_that_nobody_uploaded(name: str) -> None:
    async with client_of(front_of(DescribedPaths(None))) as client:
        for suffix in (".nar", ".nar.zst", ".nar.xz"):
            reply = await client.get(f"/nar/{name}{suffix}")
            assert reply.status == 404, reply.text
            assert "no NAR was uploaded under this name" in reply.text


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    store = await Store.filled()
    front = front_of(store.path_infos, store.content)
    digits = store.path.digits
    async with client_of(front) as client:
        for target in (
            "/nix-cache-info",
            f"/{digits}.narinfo",
            f"/{ABSENT}.narinfo",
            "/x.narinfo",
            f"/{digits}.ls",
            store.path.by_hash,
            store.path.by_node,
            "/healthz",
            "/readyz",
            "/nothing",
        ):
            # One after the other on one connection: a body after HEAD would be read as the next.
            head = await client.request("HEAD", target)
            get = await client.get(target)
            head.headers.pop("date"), get.headers.pop("date")
            assert (head.status, head.headers) == (get.status, get.headers), target


async def test_head_of_a_nar_opens_nothing() -> None:
    store = await Store.filled()
    described = DescribedPaths(description_of(store.path))
    async with client_of(front_of(described)) as client:
        reply = await client.request("HEAD", store.path.by_hash)
    assert reply.status == 200
    assert reply.headers["content-length"] == str(len(store.path.nar))
    assert described.opened == []


async def test_pipelined_requests_are_answered_in_order() -> None:
    store = await Store.filled()
    targets = [f"/{store.path.digits}.narinfo", store.path.by_hash,
               f"/{ABSENT}.narinfo", "/nix-cache-info"] * 20  # fmt: skip
    async with client_of(front_of(store.path_infos, store.content)) as client:
        for target in targets:
            client.send("GET", target)
        statuses = [(await client.receive()).status for _ in targets]
    assert statuses == [200, 200, 404, 200] * 20


async def test_a_target_with_its_origin_or_with_escapes_means_the_same() -> None:
    async with client_of(front_of(DescribedPaths(None))) as client:
        for target in ("http://other.example:80/nix-cache-info?x=1", "/nix%2Dcache-info"):
            assert (await client.get(target)).status == 200


async def test_the_body_of_a_request_is_not_read() -> None:
    async with client_of(front_of(DescribedPaths(None))) as client:
        client.send("PUT", "/x.narinfo", Content_Length="3")
        assert (await client.receive()).status == 403
        client.writer.write(b"abc")
        assert (await client.get("/healthz")).status == 200


async def test_health_readiness_and_metrics() -> None:
    reasons: list[str | None] = ["the state is locked by https://u:p@x/", None]
    upstreams = [
        UpstreamStatus("main", True, 1700000000.0),
        UpstreamStatus("dead", False, 1700000001.5, "https://u:secret@x/?y=secret: refused"),
    ]
    refreshed = []
    front = front_of(
        DescribedPaths(None),
        ready=lambda: reasons[0],
        status=lambda: upstreams,
        refresh_metrics=lambda: refreshed.append(True),
    )
    async with client_of(front) as client:
        unready = await client.get("/readyz")
        alive = await client.get("/healthz")
        del reasons[0]
        ready = await client.get("/readyz")
        metrics = await client.get("/metrics")
    assert (unready.status, alive.status, ready.status) == (503, 200, 200)
    assert json.loads(unready.body)["reason"] == "the state is locked by https://x/"
    assert json.loads(ready.body) == {
        "ready": True,
        "reason": None,
        "substituters": [
            {"name": "main", "state": "up", "since": 1700000000.0, "last_error": None},
            {
                "name": "dead",
                "state": "down",
                "since": 1700000001.5,
                "last_error": "https://x/?… refused",
            },
        ],
    }
    assert refreshed == [True]
    assert metrics.headers["content-type"].startswith("text/plain")
    line = 'tvixstore_requests_total{answer="present",front="http",route="readyz",status="200"} 1.0'
    assert line in metrics.text.splitlines()


async def test_requests_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tvixstore.http")
    store = await Store.filled()
    front = front_of(store.path_infos, store.content, access_log=True)
    async with client_of(front) as client:
        sent = len((await client.get(f"/{store.path.digits}.narinfo")).body)
        sent += len((await client.get(f"/{ABSENT}.narinfo")).body)
        await client.request("HEAD", f"/{store.path.digits}.narinfo")
        sent += len((await client.get("/nothing")).body)
    labels = {"route": "narinfo"}
    assert counted(front, "requests_total", **labels, status="200", answer="present") == 2
    assert counted(front, "requests_total", **labels, status="404", answer="absent") == 1
    assert counted(front, "request_seconds_count", **labels) == 3
    assert counted(front, "response_bytes_total") == sent
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert [(line["request"], line["route"], line["status"]) for line in fields] == [
        (1, "narinfo", 200),
        (2, "narinfo", 404),
        (3, "narinfo", 200),
        (4, "other", 404),
    ]
    assert {record.getMessage() for record in caplog.records} == {"request"}
    assert all(line["ms"] >= 0 and line["bytes"] >= 0 for line in fields)
