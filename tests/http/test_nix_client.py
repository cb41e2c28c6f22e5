"""The real Nix client takes paths out of memory services, directly and through a reverse proxy."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.http.support import Store, counted, front_of, serving, store_path
from tvixstore.castore import FileNode
from tvixstore.nix import SecretKey, fingerprint
from tvixstore.pathinfo import Description, MemoryPathInfoService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.http.support import StoredPath
    from tvixstore.pathinfo import PathInfo

pytestmark = pytest.mark.nix

PREFIX = "/some/prefix"


def new_key() -> SecretKey:
    private = Ed25519PrivateKey.generate()
    halves = private.private_bytes_raw() + private.public_key().public_bytes_raw()
    return SecretKey("test-1", halves)


def signed(info: PathInfo, key: SecretKey) -> PathInfo:
    message = fingerprint(info.store_path, info.nar_sha256, info.nar_size, info.references)
    return replace(info, signatures=(key.sign(message),))


async def nix(folder: Path, *command: str) -> str:
    """Runs a command with a private, empty configuration, and gives what it prints."""
    configuration = folder / "conf"
    configuration.mkdir(exist_ok=True)
    (configuration / "nix.conf").write_text(
        "experimental-features = nix-command\nbuild-users-group =\nsubstituters =\n"
    )
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "NIX_CONF_DIR": str(configuration),
            "NIX_USER_CONF_FILES": "/dev/null",
        },
    )
    output, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode(errors="replace")
    return output.decode()


@asynccontextmanager
async def stripping_proxy(address: str) -> AsyncIterator[str]:
    """A reverse proxy that takes `PREFIX` off every path; yields its address."""
    host, target = address.rsplit(":", 1)
    connections: set[asyncio.Task[None]] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            head = await reader.readuntil(b"\r\n\r\n")
            method, _, rest = head.partition(b" ")
            assert rest.startswith(PREFIX.encode()), rest
            writer.write(method + b" " + rest.removeprefix(PREFIX.encode()))

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        from_server, to_server = await asyncio.open_connection(host, int(target))
        requests = asyncio.create_task(forward(reader, to_server))
        try:
            while data := await from_server.read(1 << 16):
                writer.write(data)
                await writer.drain()
        finally:
            requests.cancel()
            await asyncio.wait([requests])
            for end in (writer, to_server):
                end.close()
                await end.wait_closed()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    try:
        _, port = server.sockets[0].getsockname()
        yield f"127.0.0.1:{port}"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)


@asynccontextmanager
async def reachable(address: str, proxied: bool) -> AsyncIterator[str]:
    if not proxied:
        yield f"http://{address}"
        return
    async with stripping_proxy(address) as proxy:
        yield f"http://{proxy}{PREFIX}"


class StreamedPaths(MemoryPathInfoService):
    """Describes without the node, as whatever streams from an upstream does."""

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        info = await super().describe(path_hash, nar_sha256)
        if info is None:
            return None
        known = {field.name: getattr(info, field.name) for field in fields(Description)}
        return Description(**known)


async def two_paths(store: Store, key: SecretKey) -> tuple[StoredPath, StoredPath]:
    """`app`, and `other`, which refers to it; both signed."""
    await store.path_infos.put(signed(store.path.info, key))
    app = store.path.info.store_path
    text = f"needs {app}\n".encode()
    node = FileNode(await store.blobs.put(text), len(text), executable=True)
    other = await store_path(store.path_infos, store.content, "other", node, references=(app,))
    await store.path_infos.put(signed(other.info, key))
    return store.path, other


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "behind a prefix"])
@pytest.mark.parametrize("by_node", [True, False], ids=["by node", "by hash"])
async def test_nix_copies_a_closure(proxied: bool, by_node: bool, tmp_path: Path) -> None:
    store, key = await Store.filled(), new_key()
    app, other = await two_paths(store, key)
    path_infos = store.path_infos if by_node else StreamedPaths(store.content)
    path_infos.infos = store.path_infos.infos
    front = front_of(path_infos, store.content)
    async with serving(front) as server, reachable(server.addresses[0], proxied) as url:
        command = ("nix", "copy", "--from", url, "--store", str(tmp_path / "store"))
        trusted = ("--option", "trusted-public-keys", str(key.public_key))
        await nix(tmp_path, *command, *trusted, str(other.info.store_path))
    for path in (app, other):
        dumped = await asyncio.create_subprocess_exec(
            "nix-store",
            "--dump",
            f"{tmp_path}/store{path.info.store_path}",
            stdout=asyncio.subprocess.PIPE,
        )
        assert (await dumped.communicate())[0] == path.nar
    await nix(tmp_path, "nix-store", "--store", f"{tmp_path}/store", "--verify", "--check-contents")
    assert counted(front, "requests_total", route="nar", status="200", answer="present") == 2
