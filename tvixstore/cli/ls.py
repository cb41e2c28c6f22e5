"""`tvix-store ls`: what is in a store path."""

from __future__ import annotations

import os
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tvixstore.cli.app import ComposeOption
from tvixstore.cli.storing import (
    CaFileOption,
    InsideArgument,
    SourceOption,
    TokenFileOption,
    open_reader,
    parse_inside,
    store_place,
)

if TYPE_CHECKING:
    from tvixstore.castore import Node
    from tvixstore.filesystem import Inside

# Written in one go.
_LINES: Final = 10_000


def ls(
    path: InsideArgument,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Also show modes, sizes, and where links lead.")
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-R", help="Also list what is in folders.")
    ] = False,
    source: SourceOption = None,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """List what is in a store path, as `nix store ls` does; fetch no file of it."""
    from tvixstore.cli.pouring import BROKEN_PIPE, write_out
    from tvixstore.cli.running import run

    inside = parse_inside(path)
    place = store_place(source, compose)

    async def work() -> int:
        lines: list[bytes] = []
        async with open_reader(place, token_file, ca_file) as (reader, pools):
            async with aclosing(reader.list(inside, recursive=recursive)) as found:
                try:
                    async for name, node in found:
                        lines.append(_line(_called(inside, name), node, long=long))
                        if len(lines) >= _LINES:
                            await pools.files.run(write_out, lines)
                            lines = []
                    await pools.files.run(write_out, lines)
                except BrokenPipeError:
                    return BROKEN_PIPE
        return 0

    run(work)


def _called(inside: Inside, name: bytes) -> bytes:
    if name:
        return b"./" + name
    return inside.names[-1] if inside.names else os.fsencode(inside.store_path.base_name)


def _line(name: bytes, node: Node, *, long: bool) -> bytes:
    from tvixstore.castore import DirectoryNode, FileNode

    if not long:
        return _shown(name) + b"\n"
    match node:
        case FileNode(_, size, executable):
            mode, end = b"-r-xr-xr-x" if executable else b"-r--r--r--", b""
        case DirectoryNode():
            mode, size, end = b"dr-xr-xr-x", 0, b""
        case _:
            mode, size, end = b"lrwxrwxrwx", 0, b" -> " + _shown(node.target)
    return b"%s %20d %s%s\n" % (mode, size, _shown(name), end)


def _shown(name: bytes) -> bytes:
    """To the byte, unless a terminal would obey it."""
    from tvixstore.filesystem import shown

    return shown(name).encode() if sys.stdout.isatty() else name
