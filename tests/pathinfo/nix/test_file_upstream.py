"""A cache in a folder: what is there, what is not, what cannot be told."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests.pathinfo.nix.reached import HASH, NARINFO, reach
from tvixstore.errors import ConfigError, CorruptData, Unavailable
from tvixstore.pathinfo.nix.file_upstream import _THREADS, FileUpstream
from tvixstore.pathinfo.nix.upstream import MAX_NARINFO_BYTES, Resume

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "StorePath: /nix/store/x\n"
NAR = bytes(range(256)) * 3000


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "a cache"
    (folder / "nar").mkdir(parents=True)
    (folder / NARINFO[1:]).write_text(TEXT)
    (folder / "nar" / "x.nar").write_bytes(NAR)
    (tmp_path / "outside").write_text("secret")
    return folder


def url(folder: Path) -> str:
    return folder.as_uri()


async def test_a_narinfo_is_its_text_and_a_missing_one_absent(cache: Path) -> None:
    async with reach(url(cache)) as upstream:
        assert await upstream.narinfo(HASH) == TEXT
        assert await upstream.narinfo(bytes(20)) is None


async def test_a_nar_is_read_in_pieces(cache: Path) -> None:
    async with reach(url(cache)) as upstream:
        body = await upstream.open_nar("nar/x.nar")
        assert body is not None
        assert (body.offset, body.length, body.encodings) == (0, len(NAR), ())
        async with body:
            pieces = [piece async for piece in body]
        assert len(pieces) > 1
        assert b"".join(pieces) == NAR


async def test_a_nar_goes_on_where_it_broke_off_unless_it_changed(cache: Path) -> None:
    async with reach(url(cache)) as upstream:
        body = await upstream.open_nar("nar/x.nar")
        assert body is not None and body.validator is not None
        await body.aclose()
        resume = Resume(1000, body.validator)
        rest = await upstream.open_nar("nar/x.nar", resume)
        assert rest is not None
        assert rest.offset == 1000
        assert await rest.read_all() == NAR[1000:]
        (cache / "nar" / "x.nar").write_bytes(b"another")
        fresh = await upstream.open_nar("nar/x.nar", resume)
        assert fresh is not None
        assert fresh.offset == 0
        assert await fresh.read_all() == b"another"


@pytest.mark.parametrize("name", ["nar/gone.nar", "nar/x.nar/below", "gone/x.nar"])
async def test_a_missing_nar_is_none(cache: Path, name: str) -> None:
    async with reach(url(cache)) as upstream:
        assert await upstream.open_nar(name) is None


@pytest.mark.parametrize("name", ["/nar/x.nar", "{root}/nar/x.nar"])
async def test_a_nars_url_may_be_absolute(cache: Path, name: str) -> None:
    async with reach(url(cache)) as upstream:
        body = await upstream.open_nar(name.format(root=f"file://{cache}"))
        assert body is not None
        assert await body.read_all() == NAR


@pytest.mark.parametrize(
    "name",
    ["../outside", "nar/../../outside", "", "/", "nar/\0", "http://h/x", "file:///etc/passwd"],
)
async def test_a_nars_url_that_leads_out_of_the_cache_is_corrupt(cache: Path, name: str) -> None:
    async with reach(url(cache)) as upstream:
        with pytest.raises(CorruptData, match="cache: a NAR's URL"):
            await upstream.open_nar(name)


async def test_a_folder_that_is_not_there_is_unknown(cache: Path) -> None:
    async with reach(url(cache / "unmounted")) as upstream:
        with pytest.raises(Unavailable, match="there is no folder .*unmounted"):
            await upstream.narinfo(HASH)


async def test_what_cannot_be_opened_is_unknown(cache: Path) -> None:
    # A link to itself cannot be opened by anybody, and permissions mean nothing to root.
    (cache / "nar" / "loop.nar").symlink_to("loop.nar")
    os.mkfifo(cache / "nar" / "pipe.nar")
    async with reach(url(cache)) as upstream:
        for name, reason in [
            ("nar/loop.nar", "symbolic links"),
            ("nar/pipe.nar", "not a file"),
            ("nar", "not a file"),
            ("x" * 300, "too long"),
        ]:
            with pytest.raises(Unavailable, match=f"cache: .*{name}.*{reason}"):
                await upstream.open_nar(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_what_may_not_be_read_is_unknown(cache: Path) -> None:
    (cache / NARINFO[1:]).chmod(0)
    async with reach(url(cache)) as upstream:
        with pytest.raises(Unavailable, match="Permission denied"):
            await upstream.narinfo(HASH)


async def test_a_nar_that_shrinks_under_us_is_unknown(cache: Path) -> None:
    async with reach(url(cache)) as upstream:
        body = await upstream.open_nar("nar/x.nar")
        assert body is not None
        os.truncate(cache / "nar" / "x.nar", 1000)
        with pytest.raises(Unavailable, match=f"1000 bytes of {len(NAR)}"):
            await body.read_all()


@pytest.mark.parametrize("content", [b"x" * (MAX_NARINFO_BYTES + 1), b"\xff"])
async def test_what_cannot_be_a_narinfo_is_corrupt(cache: Path, content: bytes) -> None:
    (cache / NARINFO[1:]).write_bytes(content)
    async with reach(url(cache)) as upstream:
        with pytest.raises(CorruptData, match="cache: "):
            await upstream.narinfo(HASH)


async def test_a_cancelled_open_leaves_no_file(cache: Path) -> None:
    # The leak check at the end of each test is the assertion.
    async with reach(url(cache)) as upstream:
        for turns in range(4):
            opening = asyncio.create_task(upstream.open_nar("nar/x.nar"))
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            [result] = await asyncio.gather(opening, return_exceptions=True)
            if result is not None and not isinstance(result, BaseException):
                await result.aclose()


@pytest.mark.parametrize("text", ["file:x", "file://host/x", "file:"])
async def test_an_url_without_a_folder_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="cache: "):
        async with reach(text):
            pass


async def test_a_folder_that_hangs_lets_its_askers_go_and_the_store_its_threads(
    cache: Path,
) -> None:
    back = threading.Event()
    async with reach(url(cache)) as upstream:
        assert isinstance(upstream, FileUpstream)
        pool = upstream._files
        hanging = [asyncio.create_task(pool.abandon(back.wait)) for _ in range(_THREADS)]
        await asyncio.sleep(0)
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await upstream.narinfo(HASH)
        finally:
            back.set()
            await asyncio.gather(*hanging)
        assert await upstream.narinfo(HASH) == TEXT
