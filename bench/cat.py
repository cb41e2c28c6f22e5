"""`tvix-store cat` of one file in a path of 10,000 that a daemon has: bytes that cross the line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.caches import KiB, random_bytes
from bench.harness import Row, workspace
from tests.support.composed import ComposedDaemon, local_store
from tvixstore.castore import DirectoryNode
from tvixstore.cli.clients import NO_CREDENTIALS, open_client
from tvixstore.cli.places import CachePlace, parse_place
from tvixstore.filesystem import Importer, Inside, TreeReader

_FILES, _SIZE = 10_000, 64 * KiB


async def measure() -> list[Row]:
    async with workspace() as folder:
        await asyncio.to_thread(_write, folder / "tree")
        async with ComposedDaemon(folder / "daemon", local_store()) as daemon:
            path, needed = await _import(f"grpc+http://{daemon.grpc}", folder / "tree")
            host, _, port = daemon.grpc.rpartition(":")
            async with _counting(host, int(port)) as line:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tvixstore.cli", "cat", f"{path}/d42/f4242"),
                    *("--from", f"grpc+http://127.0.0.1:{line.port}"),
                    stdout=asyncio.subprocess.PIPE,
                )
                data, _ = await process.communicate()
        assert data == _contents(4242)
    more = line.came / needed - 1
    return [
        Row(
            f"cat of one file of {_SIZE // KiB} KiB in a remote path of {_FILES:,} files",
            "bytes moved ≤ the file and its Directories + 5 %",
            f"+ {more * 100:.1f} % ({line.came:,} bytes for {needed:,}; {line.went:,} were sent)",
            more <= 0.05,
            {"bytes that came": [line.came], "bytes sent": [line.went], "needed": [needed]},
        )
    ]


def _contents(number: int) -> bytes:
    return random_bytes(f"cat {number}", _SIZE if number == 4242 else 200)


def _write(tree: Path) -> None:
    for number in range(_FILES):
        folder = tree / f"d{number // 100}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(_contents(number))


async def _import(url: str, tree: Path) -> tuple[str, int]:
    """The path, and the bytes of that file and of the two Directories that lead to it."""
    place = parse_place(url)
    assert not isinstance(place, CachePlace)
    async with open_client(place, NO_CREDENTIALS) as client:
        store = client.store
        info = await Importer(client.content, store.path_infos, client.pools).add(tree)
        needed = _SIZE
        reader = TreeReader(store.path_infos, client.content)
        for names in ((), (b"d42",)):
            node = await reader.find(Inside(info.store_path, names))
            assert isinstance(node, DirectoryNode)
            directory = await client.content.directories.get(node.digest)
            assert directory is not None
            needed += len(directory.wire)
    return str(info.store_path), needed


@dataclass(slots=True)
class _Line:
    """A line to a server, and how many bytes crossed it either way."""

    host: str
    to: int
    port: int = 0
    came: int = 0
    went: int = 0
    pumps: list[asyncio.Task[None]] = field(default_factory=list)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self.host, self.to)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, name: str) -> None:
            while data := await source.read(1 << 16):
                setattr(self, name, getattr(self, name) + len(data))
                sink.write(data)
                await sink.drain()
            sink.close()

        self.pumps += [
            asyncio.create_task(pump(reader, far_writer, "went")),
            asyncio.create_task(pump(far_reader, writer, "came")),
        ]


@asynccontextmanager
async def _counting(host: str, port: int) -> AsyncIterator[_Line]:
    line = _Line(host, port)
    async with await asyncio.start_server(line.accept, "127.0.0.1", 0) as server:
        line.port = server.sockets[0].getsockname()[1]
        yield line
        for pump in line.pumps:
            pump.cancel()
        await asyncio.gather(*line.pumps, return_exceptions=True)
