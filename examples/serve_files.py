"""Serves the files in store paths over HTTP, fetched and verified as they are asked for.

    python examples/serve_files.py compose.toml --port 8080
    curl http://127.0.0.1:8080/nix/store/…-hello-2.12/share/man/man1/hello.1

The store is opened in the program's own event loop: there is no daemon, and no file is unpacked.
A directory is answered with the names in it, a symlink with a redirect.
"""

from __future__ import annotations

import argparse
import posixpath
from collections.abc import AsyncIterator
from urllib.parse import quote_from_bytes, unquote_to_bytes

from aiohttp import web

import tvixstore
from tvixstore.castore import Directory, DirectoryNode, FileNode, Node, SymlinkNode
from tvixstore.errors import InvalidData, StoreError, Unavailable
from tvixstore.nix import StorePath

STORE = web.AppKey("STORE", tvixstore.Store)


async def find(store: tvixstore.Store, base_name: str, below: list[bytes]) -> Node | None:
    """The node at a path below a store path, or `None` if it is not there."""
    info = await store.path_infos.get(StorePath.from_base_name(base_name).hash)
    node = None if info is None or info.store_path.base_name != base_name else info.node
    for name in below:
        if not isinstance(node, DirectoryNode):
            return None
        node = (await directory_of(store, node)).get(name)
    return node


async def directory_of(store: tvixstore.Store, node: DirectoryNode) -> Directory:
    directory = await store.directories.get(node.digest)
    if directory is None:
        raise Unavailable(f"Directory {node.digest} is missing")
    return directory


async def handle(request: web.Request) -> web.StreamResponse:
    store = request.app[STORE]
    # The path as it was sent: names need not be UTF-8.
    raw = request.rel_url.raw_path.removeprefix("/nix/store/")
    base_name, *below = [unquote_to_bytes(part) for part in raw.split("/") if part]
    try:
        node = await find(store, base_name.decode("ascii", "replace"), below)
        match node:
            case None:
                raise web.HTTPNotFound
            case FileNode():
                return await send_file(request, store, node)
            case SymlinkNode(target):
                there = posixpath.join(
                    posixpath.dirname(unquote_to_bytes(request.raw_path)), target
                )
                raise web.HTTPFound(quote_from_bytes(posixpath.normpath(there)))
            case DirectoryNode():
                directory = await directory_of(store, node)
                names = [name.decode(errors="replace") for name, _ in directory]
                return web.json_response(names)
    except InvalidData as error:
        raise web.HTTPNotFound(text=str(error)) from error
    except StoreError as error:
        # Not known is not absent: ask again.
        raise web.HTTPServiceUnavailable(text=str(error)) from error


async def send_file(
    request: web.Request, store: tvixstore.Store, node: FileNode
) -> web.StreamResponse:
    """The file, or the part of it that was asked for."""
    try:
        wanted = request.http_range
    except ValueError:
        raise web.HTTPRequestRangeNotSatisfiable from None
    begin, end, _ = wanted.indices(node.size)
    response = web.StreamResponse(status=200 if wanted == slice(None, None, 1) else 206)
    if response.status == 206:
        if begin >= end:
            raise web.HTTPRequestRangeNotSatisfiable
        response.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{node.size}"
    response.content_length = end - begin
    response.headers["ETag"] = f'"{node.digest.raw.hex()}"'
    stream = await store.blobs.open_read(node.digest, begin, end - begin, size=node.size)
    if stream is None:
        raise Unavailable(f"blob {node.digest} is missing")
    async with stream:
        await response.prepare(request)
        async for part in stream:
            await response.write(part)
    await response.write_eof()
    return response


def application(compose: str) -> web.Application:
    """A program that opens the composition when it starts, and closes it when it ends."""

    async def opened(app: web.Application) -> AsyncIterator[None]:
        async with tvixstore.open(compose) as store:
            app[STORE] = store
            yield

    app = web.Application()
    app.cleanup_ctx.append(opened)
    app.router.add_get("/nix/store/{path:.+}", handle)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("compose")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    web.run_app(application(arguments.compose), host="127.0.0.1", port=arguments.port)
