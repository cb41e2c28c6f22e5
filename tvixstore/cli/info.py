"""`tvix-store info`: what is known of store paths."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvixstore.cli.app import PROGRAM, ComposeOption
from tvixstore.cli.copy import PLACE
from tvixstore.errors import InvalidData

if TYPE_CHECKING:
    from tvixstore.castore import Node
    from tvixstore.cli.clients import Credentials
    from tvixstore.cli.places import Place
    from tvixstore.pathinfo import Description, PathInfoService
    from tvixstore.transfer import Wanted
    from tvixstore.tree import Content


def info(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Store paths, base names, or hashes.")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar=PLACE,
            help="Whom to ask, named as for `copy`. Left out: the local daemon.",
            show_default=False,
        ),
    ] = None,
    compose: ComposeOption = None,
    closure_size: Annotated[
        bool,
        typer.Option(
            "--closure-size",
            "-S",
            help="Also tell the size of all NARs that a path needs together.",
        ),
    ] = False,
    netrc_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Logins, as in a .netrc.", show_default=False),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A token, if one is wanted.", show_default=False),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Authorities that are believed in addition to the system's.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """Say what is known of store paths. Downloads nothing."""
    from tvixstore.cli.clients import Credentials
    from tvixstore.cli.places import default_place, parse_place
    from tvixstore.cli.running import run
    from tvixstore.transfer import parse_wanted

    try:
        wanted = [parse_wanted(path) for path in paths]
    except InvalidData as error:
        raise typer.BadParameter(str(error)) from None
    if source is not None and compose is not None:
        raise typer.BadParameter("--from and --compose both say whom to ask: name one")
    place = default_place(compose) if source is None else parse_place(source)
    credentials = Credentials(token_file, netrc_file, ca_file)

    async def tell() -> int:
        return await _tell(place, credentials, wanted, closure_size=closure_size, as_json=as_json)

    run(tell)


async def _tell(
    place: Place,
    credentials: Credentials,
    wanted: list[Wanted],
    *,
    closure_size: bool,
    as_json: bool,
) -> int:
    """Tells of those that are there; the exit code says whether all were."""
    from tvixstore.cli.running import ABSENT
    from tvixstore.transfer import plan

    found: list[dict[str, Any]] = []
    absent = 0
    async with _open(place, credentials) as (path_infos, content):
        for each in wanted:
            description = await path_infos.describe(each.hash)
            if description is None:
                absent += 1
                typer.echo(f"{PROGRAM}: {each.name} is not in {place}", err=True)
                continue
            told = await _known(description, content)
            if closure_size:
                closure = await plan(path_infos, str(place), [each])
                told["closure_size"] = sum(one.nar_size for one in closure)
            found.append(told)
            if not as_json:
                typer.echo(("\n" if len(found) > 1 else "") + _text(told))
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    return ABSENT if absent else 0


@asynccontextmanager
async def _open(
    place: Place, credentials: Credentials
) -> AsyncIterator[tuple[PathInfoService, Content | None]]:
    from tvixstore.cli.clients import open_client
    from tvixstore.cli.ends import open_cache
    from tvixstore.cli.places import CachePlace

    if isinstance(place, CachePlace):
        async with open_cache(place, credentials) as path_infos:
            yield path_infos, None
        return
    async with open_client(place, credentials) as client:
        yield client.store.path_infos, client.content


async def _known(description: Description, content: Content | None) -> dict[str, Any]:
    from tvixstore.nix import NixHash, nixbase32
    from tvixstore.pathinfo import PathInfo

    nar_hash = NixHash("sha256", description.nar_sha256)
    root = description.node if isinstance(description, PathInfo) else None
    return {
        "path": str(description.store_path),
        "nar_hash": f"sha256-{base64.b64encode(description.nar_sha256).decode()}",
        "nar_hash_nix32": nixbase32.encode(nar_hash.digest),
        "nar_size": description.nar_size,
        "references": [str(each) for each in description.references],
        "deriver": None if description.deriver is None else str(description.deriver),
        "signatures": [str(each) for each in description.signatures],
        "ca": None if description.ca is None else str(description.ca),
        "root": None if root is None else _root(root),
        "content": None if content is None else root is not None and await _has(content, root),
    }


def _root(node: Node) -> dict[str, Any]:
    from tvixstore.castore import DirectoryNode, FileNode

    match node:
        case FileNode():
            kind: dict[str, Any] = {
                "type": "file",
                "digest": str(node.digest),
                "size": node.size,
                "executable": node.executable,
            }
        case DirectoryNode():
            kind = {"type": "directory", "digest": str(node.digest), "size": node.size}
        case _:
            kind = {"type": "symlink", "target": node.target.decode(errors="backslashreplace")}
    return kind


async def _has(content: Content, node: Node) -> bool:
    """Whether the root's content is there: what is below it is not looked for."""
    from tvixstore.castore import DirectoryNode, FileNode

    match node:
        case FileNode():
            return await content.blobs.has(node.digest)
        case DirectoryNode():
            return await content.directories.get(node.digest) is not None
        case _:
            return True


def _text(told: dict[str, Any]) -> str:
    """For people: a line a fact, and none for what there is not."""
    root = told["root"]
    content = {None: None, True: "here", False: "not here"}[told["content"]]
    rows: list[tuple[str, Any]] = [
        ("path", told["path"]),
        ("NAR hash", told["nar_hash"]),
        ("", f"sha256:{told['nar_hash_nix32']}"),
        ("NAR size", f"{told['nar_size']} bytes"),
        ("closure size", f"{told['closure_size']} bytes" if "closure_size" in told else None),
        *_several("references", told["references"]),
        ("deriver", told["deriver"]),
        *_several("signed by", [each.partition(":")[0] for each in told["signatures"]]),
        ("CA", told["ca"]),
        (
            "root",
            None if root is None else f"{root['type']} {root.get('digest', root.get('target'))}",
        ),
        ("content", content),
    ]
    return "\n".join(f"{key:<13} {value}" for key, value in rows if value is not None)


def _several(key: str, values: list[str]) -> list[tuple[str, Any]]:
    return [(key if not number else "", value) for number, value in enumerate(values)]
