"""Killed at any step of writing, the store shows whole blobs only, and all that were stored."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.blob.crash_writer import GROUPS, group
from tests.blob.stores import Store, local_store
from tvixstore.blob.chunk_codec import Record
from tvixstore.blob.chunk_list import decode_chunk_list
from tvixstore.castore import Digest
from tvixstore.kv import STEPS, StateDirectory

ROOT = Path(__file__).parents[2]


def start(path: Path, kill_at: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.blob.crash_writer", path],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TVIXSTORE_KILL_AT": kill_at},
    )


async def check(path: Path, stored: list[str]) -> None:
    """What is visible is whole, and `stored` is visible."""
    # The lock of the killed process is gone with it.
    StateDirectory(path).close()
    async with local_store(path) as store:
        expected = {
            Digest.of(data).hex(): data
            for number in range(len(stored) + len(GROUPS))
            for data in group(number)
        }
        for digest in stored:
            assert await store.blobs.read(Digest.from_hex(digest)) == expected[digest]
        for digest, data in expected.items():
            assert await store.blobs.read(Digest.from_hex(digest)) in (data, None)
        await check_everything_visible(store)
        assert list((path / "chunks" / "incoming").iterdir()) == []
        # What was interrupted can be stored now.
        for data in expected.values():
            assert await store.blobs.read(await store.blobs.put(data)) == data


async def check_everything_visible(store: Store) -> None:
    for blob, value in await store.table_blobs.scan():
        for chunk, _ in decode_chunk_list(blob, value):
            assert await store.table_chunks.get(chunk) is not None
        assert await store.blobs.read(Digest(blob)) is not None
    for chunk, value in await store.table_chunks.scan():
        Record.decode(chunk, value)
        assert await store.blobs.read(Digest(chunk)) is not None
    assert store.blobs.dropped_chunks == 0


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_at_a_named_step_leaves_no_partial_blob(
    tmp_path: Path, step: str, times: int
) -> None:
    with start(tmp_path, f"{step}:{times}") as writer:
        assert writer.stdout is not None
        stored = writer.stdout.read().split()
    assert writer.returncode == -signal.SIGKILL
    await check(tmp_path, stored)


@pytest.mark.parametrize("seed", range(6))
async def test_a_kill_at_random_leaves_no_partial_blob(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with start(tmp_path) as writer:
        assert writer.stdout is not None
        stored = [writer.stdout.readline().strip() for _ in range(chance.randrange(1, 12))]
        # Somewhere in the middle of the next ones: as many bytes later as chance says.
        reached = sum(path.stat().st_size for path in files(tmp_path))
        wanted = reached + chance.randrange(1_000_000)
        while sum(path.stat().st_size for path in files(tmp_path)) < wanted:
            assert writer.poll() is None
        writer.kill()
        stored += writer.stdout.read().split()
    assert writer.returncode == -signal.SIGKILL
    await check(tmp_path, stored)


def files(path: Path) -> list[Path]:
    """The chunk files at this moment, as far as they can be looked at."""
    return [file for file in (path / "chunks").glob("??/*") if file.is_file()]
