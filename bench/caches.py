"""Upstream caches to measure with: folders of signed paths whose content is made up."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.server import GENERATED, Generated
from tests.nar.trees import File, Tree
from tests.support.caches import MadePath, files_of, make_path, signed
from tvixstore.nar import writer
from tvixstore.nix import NarInfo, SecretKey, StorePath, nixbase32

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

_PRIVATE = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"bench").digest())
KEY = SecretKey("bench-1", _PRIVATE.private_bytes_raw() + _PRIVATE.public_key().public_bytes_raw())
PUBLIC_KEY = str(KEY.public_key)


def random_bytes(seed: str, size: int) -> bytes:
    """Bytes that do not compress."""
    return blake3(seed.encode()).digest(size)


def halving_bytes(seed: str, size: int) -> bytes:
    """Bytes that compress to about half, as programs do."""
    return random_bytes(seed, size // 2).hex().encode()


def small_files(seed: str, count: int, low: int, high: int) -> Tree:
    """`count` files of `low` to `high` bytes, a hundred in a folder."""
    sizes = random.Random(seed)
    root: dict[bytes, Tree] = {}
    for start in range(0, count, 100):
        root[b"d%04d" % start] = {
            b"f%05d" % number: File(random_bytes(f"{seed} {number}", sizes.randint(low, high)))
            for number in range(start, min(start + 100, count))
        }
    return root


def small_paths(count: int) -> list[MadePath]:
    """Paths of one file of 200 to 4,000 bytes, with three references each."""
    sizes = random.Random("small paths")
    paths: list[MadePath] = []
    for number in range(count):
        references = [path.narinfo.store_path for path in paths[-3:]]
        tree = File(halving_bytes(f"small {number}", sizes.randint(200, 4000)))
        paths.append(make_path(f"small-{number}", KEY, tree, references=references))
    return paths


def write_cache(folder: Path, paths: Iterable[MadePath]) -> Path:
    """`folder`, made a binary cache."""
    (folder / "nar").mkdir(parents=True)
    for target, body in files_of(paths).items():
        (folder / target.lstrip("/")).write_bytes(body)
    return folder


def write_generated(folder: Path, name: str, size: int) -> StorePath:
    """Adds a path of one file of `size` bytes, whose NAR the server makes up as it goes."""
    body = Generated(
        name,
        size,
        writer.open_regular(b"", size).hex(),
        writer.close_regular(b"", size).hex(),
    )
    hashed = hashlib.sha256()
    for piece in body.pieces():
        hashed.update(piece)
    digest = hashed.digest()
    url = f"nar/{nixbase32.encode(digest)}.nar"
    narinfo = NarInfo(
        store_path=StorePath(hashlib.sha256(name.encode()).digest()[:20], name),
        url=url,
        compression="none",
        nar_sha256=digest,
        nar_size=len(body),
        references=(),
    )
    (folder / f"{narinfo.store_path.digits}.narinfo").write_text(str(signed(narinfo, KEY)))
    fields = {"seed": name, "size": size, "head": body.head, "tail": body.tail}
    (folder / GENERATED).write_text(json.dumps({f"/{url}": fields}))
    return narinfo.store_path


def digits_of(paths: Sequence[MadePath]) -> list[str]:
    return [path.digits for path in paths]
