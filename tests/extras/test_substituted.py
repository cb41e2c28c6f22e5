"""Extras of substituters: who is asked, what counts, what is kept and what is not."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import lzma
from typing import Any

import brotli
import pytest
import zstandard

from tests.extras.test_documents import DRV, ID, realisation
from tests.extras.upstreams import DictUpstream
from tests.support.roots import CountingRoots
from tests.support.signing import secret_key
from tests.support.virtual_clock import virtual_clock
from tvixstore.blob import MemoryBlobService
from tvixstore.directory import MemoryDirectoryService
from tvixstore.errors import CorruptData, Skipped, StorageFull, Unavailable
from tvixstore.extras import (
    CachedExtras,
    ExtraName,
    ExtrasSource,
    LocalExtras,
    SubstitutedExtras,
)
from tvixstore.kv import MemoryKeyValue
from tvixstore.nix import KeyRing, nixbase32
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.retry import Retry
from tvixstore.pools import Pools
from tvixstore.tree import Content

LOG = ExtraName.log(DRV)
DOI = ExtraName.realisation(ID)
DEBUG = ExtraName.debug_info("0" * 40)
TEXT = b"building\n" * 5000


class LoopPool:
    """Runs calls at once: the clock of these tests stands still meanwhile."""

    async def run(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)


class LoopPools(Pools):
    def __init__(self) -> None:
        self.cpu = self.files = LoopPool()  # type: ignore[assignment]


def source(upstream: DictUpstream, **fields: Any) -> ExtrasSource:
    fields.setdefault("keys", None)
    return ExtrasSource(name="cache", upstream=upstream, pools=LoopPools(), **fields)


def content_of(blobs: MemoryBlobService) -> Content:
    return Content(blobs, MemoryDirectoryService())


def caching(*classes: list[ExtrasSource]) -> CachedExtras:
    return CachedExtras(
        LocalExtras(MemoryKeyValue(), content_of(MemoryBlobService())), SubstitutedExtras(classes)
    )


async def read(extras: CachedExtras, name: ExtraName) -> bytes | None:
    found = await extras.find(name)
    if found is None:
        return None
    stream = await found.open()
    assert stream is not None
    data = await stream.read_all()
    assert found.size in (None, len(data))
    return data


async def test_the_first_class_that_has_it_is_taken_and_it_is_kept() -> None:
    first, second, third = DictUpstream(), DictUpstream({LOG.path: TEXT}), DictUpstream()
    extras = caching([source(first)], [source(second)], [source(third)])
    assert await read(extras, LOG) == TEXT
    assert (first.asked, second.asked, third.asked) == ([LOG.path], [LOG.path], [])
    second.files.clear()
    assert await read(extras, LOG) == TEXT
    assert second.asked == [LOG.path]


async def test_within_a_class_the_first_valid_answer_wins() -> None:
    liar = DictUpstream({DOI.path: b"<html>"})
    honest = DictUpstream({DOI.path: realisation("x")})
    extras = caching([source(liar), source(honest)])
    assert await read(extras, DOI) == realisation("x")


@virtual_clock
async def test_absent_is_what_all_say_and_it_is_remembered_for_a_while() -> None:
    upstreams = [DictUpstream(), DictUpstream()]
    extras = caching(*[[source(each)] for each in upstreams])
    assert await read(extras, LOG) is None
    upstreams[1].files[LOG.path] = TEXT
    assert await read(extras, LOG) is None
    assert [each.asked for each in upstreams] == [[LOG.path]] * 2
    await asyncio.sleep(61)
    assert await read(extras, LOG) == TEXT


async def test_what_somebody_cannot_say_is_unknown_and_not_remembered() -> None:
    failing = DictUpstream({LOG.path: Unavailable("it is down")})
    extras = caching([source(failing)], [source(DictUpstream())])
    for _ in range(2):
        with pytest.raises(Unavailable, match="it is down"):
            await read(extras, LOG)
    assert len(failing.asked) == 2
    failing.files.clear()
    assert await read(extras, LOG) is None


async def test_a_put_ends_a_remembered_absence() -> None:
    extras = caching([source(DictUpstream())])
    assert await read(extras, DOI) is None
    await extras.put_document(DOI, realisation("x"))
    assert await read(extras, DOI) == realisation("x")


async def test_an_upstream_that_is_down_is_left_alone_with_its_narinfos() -> None:
    upstream = DictUpstream({LOG.path: Unavailable("down")})
    breaker = Breaker(failures=1)
    extras = caching([source(upstream, breaker=breaker, retry=Retry(2, 0.0, 0.0))])
    for _ in range(3):
        with pytest.raises(Unavailable):
            await read(extras, LOG)
    assert breaker.is_open
    assert len(upstream.asked) == 2


async def test_an_optional_one_that_is_down_is_skipped_by_name() -> None:
    down = DictUpstream({LOG.path: Unavailable("down")})
    extras = caching(
        [source(down, breaker=Breaker(failures=1), optional=True)], [source(DictUpstream())]
    )
    with pytest.raises(Skipped) as caught:
        await read(extras, LOG)
    assert (caught.value.names, caught.value.answered) == (("cache",), True)


async def test_of_realisations_a_trusted_key_has_to_vouch() -> None:
    keys = KeyRing([secret_key("trusted-1").public_key])
    forged = DictUpstream({DOI.path: realisation("evil", "evil-1")})
    signed = DictUpstream({DOI.path: realisation("x", "trusted-1")})
    extras = caching([source(forged, keys=keys)], [source(signed, keys=keys)])
    assert await read(extras, DOI) == realisation("x", "trusted-1")
    with pytest.raises(Unavailable, match="no trusted signature"):
        await read(caching([source(forged, keys=keys)]), DOI)


@pytest.mark.parametrize(
    ("packed", "encodings"),
    [
        (TEXT, ()),
        (lzma.compress(TEXT), ()),
        (bz2.compress(TEXT), ()),
        (gzip.compress(TEXT, mtime=0), ()),
        (zstandard.ZstdCompressor().compress(TEXT), ()),
        (brotli.compress(TEXT), ("br",)),
        (gzip.compress(TEXT, mtime=0), ("gzip",)),
    ],
)
async def test_logs_come_out_as_text(packed: bytes, encodings: tuple[str, ...]) -> None:
    extras = caching([source(DictUpstream({LOG.path: packed}, encodings=encodings))])
    assert await read(extras, LOG) == TEXT


@pytest.mark.parametrize("text", [b"", b"x", b"(B" * 30, b"BZ is no compression\n" * 9])
async def test_short_and_odd_logs_are_text_too(text: bytes) -> None:
    extras = caching([source(DictUpstream({LOG.path: text}))])
    assert await read(extras, LOG) == text


@pytest.mark.parametrize(
    "upstream",
    [
        DictUpstream({LOG.path: TEXT}, breaks=True),
        DictUpstream({LOG.path: lzma.compress(TEXT)[:-9]}),
        DictUpstream({LOG.path: b"no br"}, encodings=("br",)),
        DictUpstream({LOG.path: b"?"}, encodings=("rot13",)),
    ],
)
async def test_a_log_that_is_not_whole_is_unknown_and_not_kept(upstream: DictUpstream) -> None:
    extras = caching([source(upstream)])
    with pytest.raises((Unavailable, CorruptData)):
        await read(extras, LOG)
    assert await extras.near.find(LOG) is None
    assert all(body.closed for body in upstream.bodies)


async def test_a_full_store_passes_extras_on() -> None:
    class Full(MemoryBlobService):
        async def put(self, data: bytes) -> Any:
            raise StorageFull("no room")

        async def open_write(self, boundaries: Any = None) -> Any:
            raise StorageFull("no room")

    files: dict[str, Any] = {LOG.path: TEXT, DOI.path: realisation("x")}
    upstream = DictUpstream(files)
    extras = CachedExtras(
        LocalExtras(MemoryKeyValue(), content_of(Full())), SubstitutedExtras([[source(upstream)]])
    )
    for _ in range(2):
        assert await read(extras, LOG) == TEXT
        assert await read(extras, DOI) == realisation("x")
    assert len(upstream.asked) == 8


async def test_a_nar_that_debug_information_refers_to_comes_through_held_against_its_name() -> None:
    nar = bytes(range(256)) * 100
    file = f"{nixbase32.encode(hashlib.sha256(nar).digest())}.nar.xz"
    document = b'{"archive":"../nar/%b","member":"lib/x"}' % file.encode()
    upstream = DictUpstream({DEBUG.path: document, f"nar/{file}": nar})
    extras = caching([source(upstream)])
    # Nobody downloads through us what nothing here refers to.
    assert await extras.open_linked(file) is None
    assert await read(extras, DEBUG) == document
    stream = await extras.open_linked(file)
    assert stream is not None
    assert await stream.read_all() == nar
    upstream.files[f"nar/{file}"] = nar[:-1] + b"x"
    stream = await extras.open_linked(file)
    assert stream is not None
    with pytest.raises(CorruptData, match="does not hash to its name"):
        await stream.read_all()
    assert await extras.open_linked("../../etc/passwd") is None


async def test_a_blob_that_is_gone_is_fetched_again() -> None:
    extras = caching([source(DictUpstream({LOG.path: TEXT}))])
    assert await read(extras, LOG) == TEXT
    blobs = extras.near.blobs
    assert isinstance(blobs, MemoryBlobService)
    blobs.blobs.clear()
    assert await read(extras, LOG) == TEXT
    assert extras.near.lost == 1


async def test_rows_count_as_references_of_their_blobs() -> None:
    table = MemoryKeyValue()
    counting = CountingRoots(table)
    near = LocalExtras(table, content_of(MemoryBlobService()), counting)
    extras = CachedExtras(near, SubstitutedExtras([]))
    for _ in range(2):
        await extras.put_document(DOI, realisation("x"))
    await extras.put_document(DOI, realisation("x", "one-1"))
    await extras.put_document(DEBUG, b'{"archive":"a","member":"b"}')
    assert len(counting.nodes) == 2
    assert await read(extras, DOI) == realisation("x", "one-1")
    blobs = near.blobs
    assert isinstance(blobs, MemoryBlobService)
    blobs.blobs.clear()
    assert await read(extras, DOI) is None
    assert len(counting.nodes) == 1


async def test_two_who_sign_at_once_both_stay() -> None:
    extras = caching()
    signers = [f"signer-{number}" for number in range(5)]
    await asyncio.gather(*[extras.put_document(DOI, realisation("x", name)) for name in signers])
    kept = await read(extras, DOI)
    assert kept is not None
    assert all(name.encode() in kept for name in signers)


async def test_several_who_want_one_log_fetch_it_once() -> None:
    upstream = DictUpstream({LOG.path: TEXT})
    extras = caching([source(upstream)])
    assert await asyncio.gather(*[read(extras, LOG) for _ in range(5)]) == [TEXT] * 5
    assert upstream.asked == [LOG.path]
