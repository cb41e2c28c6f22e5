"""Binary caches to be upstreams: made by the real Nix tools, or by hand where many are needed.

A `Workshop` is a private Nix store with a signing key. What it builds is copied into folders that
any HTTP server can serve. A `MadePath` is a path that no Nix ever built: its name and hash are made
up, but the signature is right, so that Nix and we install it like any other, and tests can have
thousands, each of which is wrong in its own way if they like.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from tests.nar.trees import File, Tree, nar_of, read_in
from tests.support.nix_client import environment
from tvixstore.nix import NarInfo, SecretKey, StorePath, fingerprint, nixbase32

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

CACHE_INFO = b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"


class Workshop:
    """Where the upstreams' paths come from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = environment(folder)
        secret, public = folder / "key.secret", folder / "key.public"
        self._run("nix-store", "--generate-binary-cache-key", "workshop-1", secret, public)
        self.secret_key = SecretKey.parse(secret.read_text())
        self.public_key = public.read_text()

    def original(self, store_path: str) -> Path:
        """Where in the file system the workshop has that store path."""
        return self.folder / "root" / store_path.removeprefix("/")

    def build(self, expression: Path, *attributes: str) -> list[str]:
        """The store paths of a file's attributes, in their order."""
        chosen = [part for attribute in attributes for part in ("-A", attribute)]
        return self._in_store("nix-build", "--no-out-link", expression, *chosen)

    def add(self, *paths: Path) -> list[str]:
        return self._in_store("nix-store", "--add", *paths)

    def closure(self, *store_paths: str) -> list[str]:
        return self._in_store("nix-store", "--query", "--requisites", *store_paths)

    def path_info(self, *store_paths: str) -> str:
        """What `nix path-info --json` says of them."""
        root = self.folder / "root"
        return self._run("nix", "path-info", "--store", root, "--json", *store_paths)

    def publish(self, name: str, compression: str, *store_paths: str) -> Path:
        """The folder of a signed cache with the closures of `store_paths`."""
        folder = self.folder / name
        where = f"file://{folder}?compression={compression}&secret-key={self.folder}/key.secret"
        self._run("nix", "copy", "--store", self.folder / "root", "--to", where, *store_paths)
        return folder

    def _in_store(self, program: str, *arguments: str | Path) -> list[str]:
        return self._run(program, "--store", self.folder / "root", *arguments).split()

    def _run(self, *command: str | Path) -> str:
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@dataclass(frozen=True)
class MadePath:
    """A store path made by hand. `nar` is what is served, which a liar's narinfo does not fit."""

    narinfo: NarInfo
    nar: bytes

    @property
    def store_path(self) -> str:
        return str(self.narinfo.store_path)

    @property
    def digits(self) -> str:
        return self.narinfo.store_path.digits

    @property
    def narinfo_target(self) -> str:
        return f"/{self.digits}.narinfo"

    @property
    def nar_target(self) -> str:
        return f"/{self.narinfo.url}"

    @cached_property
    def text(self) -> bytes:
        return str(self.narinfo).encode()

    def files(self) -> dict[str, bytes]:
        """What a server has of it, by target."""
        return {self.narinfo_target: self.text, self.nar_target: self.nar}


def make_path(
    name: str,
    key: SecretKey | None,
    tree: Tree | None = None,
    *,
    size: int = 1000,
    references: Sequence[StorePath] = (),
) -> MadePath:
    """A path called `name`: with `tree`, or else one file of `size` random bytes.

    The same arguments make the same path. Without `key` it is unsigned.
    """
    if tree is None:
        tree = File(random.Random(name).randbytes(size))
    nar = nar_of(tree)
    store_path = StorePath(hashlib.sha256(name.encode()).digest()[:20], name)
    digest = hashlib.sha256(nar).digest()
    narinfo = NarInfo(
        store_path=store_path,
        url=f"nar/{nixbase32.encode(digest)}.nar",
        compression="none",
        nar_sha256=digest,
        nar_size=len(nar),
        references=tuple(sorted(references, key=StorePath.order)),
    )
    return MadePath(narinfo if key is None else signed(narinfo, key), nar)


def signed(narinfo: NarInfo, key: SecretKey) -> NarInfo:
    """`narinfo` with a signature by `key` and no other, whatever it says."""
    ordered = sorted(narinfo.references, key=StorePath.order)
    message = fingerprint(narinfo.store_path, narinfo.nar_sha256, narinfo.nar_size, ordered)
    return replace(narinfo, signatures=(key.sign(message),))


def files_of(paths: Iterable[MadePath]) -> dict[str, bytes]:
    """What the server of a cache with all of `paths` has, by target."""
    files = {"/nix-cache-info": CACHE_INFO}
    for path in paths:
        files |= path.files()
    return files


def assert_same_tree(one: Path, other: Path) -> None:
    """Every name, byte, target and executable bit is the same."""
    assert read_in(os.fsencode(one)) == read_in(os.fsencode(other))
