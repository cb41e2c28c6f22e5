"""`Store.forget_absences`: what was put elsewhere meanwhile is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvixstore
from tests.support.caches import files_of, make_path
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.castore import Digest
from tvixstore.nix import SecretKey

if TYPE_CHECKING:
    from pathlib import Path

KEY = SecretKey.generate("here-1")
MEMORY = {"root": {"type": "memory"}}


def negative(inner: dict[str, Any]) -> dict[str, Any]:
    return {"root": {"type": "negative", "ttl": "1h", "inner": "far"}, "far": inner}


async def test_negative_nodes_and_what_caches_said_are_asked_anew(tmp_path: Path) -> None:
    first, second = make_path("first", KEY), make_path("second", KEY)
    bucket = {"type": "objectstore", "object_store_url": f"file://{tmp_path}/bucket"}
    blobs = (b"one", b"two")
    digests = [Digest.of(data) for data in blobs]
    async with UpstreamServer() as upstream:
        cache = {
            **{"type": "nix", "base_url": upstream.url},
            "public_keys": [str(KEY.public_key)],
        }
        document = {
            "daemon": {"state": str(tmp_path / "state"), "negative_ttl": "1h"},
            "blobservices": negative(bucket),
            "directoryservices": MEMORY,
            "pathinfoservices": negative(cache),
        }
        hashes = [path.narinfo.store_path.hash for path in (first, second)]
        async with tvixstore.open(document) as store:

            async def found() -> list[bool]:
                return [await store.path_infos.describe(each) is not None for each in hashes]

            assert await found() == [False, False]
            assert not any([await store.blobs.has(digest) for digest in digests])
            for target, body in files_of([first, second]).items():
                upstream.on(target, Reply(body=body))
            other = {
                "blobservices": {"root": bucket},
                "directoryservices": MEMORY,
                "pathinfoservices": MEMORY,
            }
            async with tvixstore.open(other) as elsewhere:
                await elsewhere.blobs.put_many(blobs)
            assert await found() == [False, False]
            assert not any([await store.blobs.has(digest) for digest in digests])

            # The cache's answer, the node's, and two blobs: who knows whose they are.
            assert await store.forget_absences([hashes[0]]) == 4
            assert await found() == [True, False]
            assert all([await store.blobs.has(digest) for digest in digests])
            assert await store.forget_absences() == 2
            assert await found() == [True, True]
