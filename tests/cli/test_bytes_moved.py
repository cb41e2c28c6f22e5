"""`cat` of one file of a great remote path: what goes over the wire, counted there."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path

from tests.nar.trees import File, Tree, write_out
from tests.support.command import tvix_store
from tests.support.composed import ComposedDaemon, graph_text, local_store, tier_over

WANTED = random.Random(1).randbytes(100_000).hex()


async def test_no_more_is_moved_than_a_file_and_the_directories_on_the_way(tmp_path: Path) -> None:
    inner: dict[bytes, Tree] = {b"f%d" % file: File(b"%d" % file) for file in range(100)}
    tree: dict[bytes, Tree] = {b"d%d" % folder: inner for folder in range(99)}
    tree[b"last"] = {**inner, b"wanted": File(WANTED.encode())}
    write_out(tree, os.fsencode(tmp_path / "tree"))
    far, counted = tmp_path / "far.sock", tmp_path / "counted.sock"
    moved = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal moved
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                moved += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(os.fspath(far))
        await asyncio.gather(relay(reader, there[1]), relay(there[0], writer))

    async with ComposedDaemon(tmp_path / "far", local_store(), {"grpc": f"unix:{far}"}):
        done = await tvix_store("import", "--to", f"grpc+unix://{far}", "tree", cwd=tmp_path)
        assert done.code == 0, done.err
        (tmp_path / "near.toml").write_text(graph_text(tier_over(f"grpc+unix://{counted}")))
        async with await asyncio.start_unix_server(serve, os.fspath(counted)):
            path = f"{done.out.strip()}/last/wanted"
            done = await tvix_store("cat", "--compose", "near.toml", path, cwd=tmp_path)
            assert (done.code, done.out) == (0, WANTED)
    # Each entry of the two Directories is a name, a digest and a size.
    directories = sum(len(name) + 45 for name in [*tree, *inner, b"wanted"])
    assert len(WANTED) < moved <= (len(WANTED) + directories) * 1.05
