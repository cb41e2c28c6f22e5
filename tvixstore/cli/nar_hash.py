"""`tvix-store nar-hash`: what the NAR of a tree on disk hashes to, without a store."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Annotated

import typer


def nar_hash(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files or folders.")],
    base16: Annotated[bool, typer.Option("--base16", help="Write it in hex.")] = False,
    base32: Annotated[bool, typer.Option("--base32", help="Write it in Nix's base 32.")] = False,
    base64: Annotated[bool, typer.Option("--base64", help="Write it in base 64.")] = False,
    sri: Annotated[bool, typer.Option("--sri", help="Write it as sha256-…: the default.")] = False,
) -> None:
    """Print the SHA-256 of the NAR of each PATH, as `nix hash path` does. Needs no store."""
    asked = {"base16": base16, "base32": base32, "base64": base64, "sri": sri}
    chosen = [name for name, wanted in asked.items() if wanted] or ["sri"]
    if len(chosen) > 1:
        raise typer.BadParameter(f"name one of {', '.join(f'--{name}' for name in asked)}")
    from tvixstore.cli.running import run

    async def tell() -> int:
        import tvixstore

        for path in paths:
            typer.echo(_written((await tvixstore.nar_hash(path)).sha256, chosen[0]))
        return 0

    run(tell)


def _written(digest: bytes, form: str) -> str:
    if form == "base16":
        return digest.hex()
    if form == "base32":
        from tvixstore.nix import nixbase32

        return nixbase32.encode(digest)
    text = b64encode(digest).decode()
    return text if form == "base64" else f"sha256-{text}"
