"""The real Nix 2.8 client, with a configuration, a cache of narinfos and a store of its own.

client = NixClient(tmp_path / "client", public_key)
await client.copy(daemon.url, path)
assert_same_tree(workshop.original(path), client.path(path))
await client.verify()
"""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# What a run of Nix may take, in seconds; its own patience with a 503 is 5.
PATIENCE = 90.0

# A chroot store lets builders use what /bin/sh needs from the machine.
_CONFIGURATION = """\
experimental-features = nix-command flakes ca-derivations
sandbox = false
build-users-group =
substituters =
trusted-public-keys =
sandbox-paths = /bin=/usr/bin /usr /lib=/usr/lib /lib64=/usr/lib64
"""


def is_installed() -> bool:
    return shutil.which("nix-store") is not None


def environment(folder: Path) -> dict[str, str]:
    """What Nix is to see of the environment, with everything it keeps below `folder`."""
    (folder / "home").mkdir(parents=True, exist_ok=True)
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf/nix.conf").write_text(_CONFIGURATION)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home/.cache"),
        "NIX_CONF_DIR": str(folder / "conf"),
        "NIX_USER_CONF_FILES": "/dev/null",
    }


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that came to its end; `output` is both of its streams."""

    command: tuple[str, ...]
    code: int
    output: str


class NixClient:
    """A client that trusts `public_key`, with an empty chroot store below `folder`."""

    def __init__(
        self, folder: Path, public_key: str, *, patience: float = PATIENCE, **options: str
    ) -> None:
        """`options` are Nix's, as in nix.conf, with underscores for dashes.

        `patience` is how long one command may take.
        """
        self.folder = folder
        self.store = folder / "store"
        self.patience = patience
        self._environment = environment(folder)
        self._options = ["--option", "trusted-public-keys", public_key]
        for name, value in options.items():
            self._options += ["--option", name.replace("_", "-"), value]

    def trust(self, ca_file: Path) -> None:
        """Has it believe servers whose certificates are by that authority."""
        self._environment["NIX_SSL_CERT_FILE"] = str(ca_file)

    def path(self, store_path: str) -> Path:
        """Where in the file system the client has that store path."""
        return self.store / store_path.removeprefix("/")

    def has(self, *store_paths: str) -> bool:
        return all(os.path.lexists(self.path(store_path)) for store_path in store_paths)

    async def copy(self, url: str, *store_paths: str, check: bool = True) -> Finished:
        """`nix copy --from`, which knows no other place to get the paths from."""
        return await self._run("nix", "copy", "--from", url, *store_paths, check=check)

    async def realise(
        self, url: str, *store_paths: str, jobs: int = 1, check: bool = True
    ) -> Finished:
        """`nix-store --realise`, with `url` as the only substituter."""
        where = ("--option", "substituters", url)
        command = ("nix-store", "--realise", f"-j{jobs}", *store_paths, *where)
        return await self._run(*command, check=check)

    async def build(
        self, url: str, expression: Path, *attributes: str, check: bool = True
    ) -> Finished:
        """`nix-build` of a file's attributes, with `url` as the only substituter."""
        chosen = [part for attribute in attributes for part in ("-A", attribute)]
        where = ("--option", "substituters", url, "--no-out-link")
        return await self._run("nix-build", str(expression), *chosen, *where, check=check)

    async def verify(self) -> None:
        """`nix-store --verify --check-contents`: every path in the store hashes to its NAR hash."""
        await self._run("nix-store", "--verify", "--check-contents")

    async def verify_signatures(self, *store_paths: str) -> None:
        """`nix store verify`: a key that it trusts has signed each path and what it refers to."""
        needed = ("--recursive", "--sigs-needed", "1", *store_paths)
        await self._run("nix", "store", "verify", *needed)

    async def signatures(self, store_path: str) -> list[str]:
        """The signatures that it holds, in no particular order, as `name:base64`."""
        finished = await self._run("nix", "path-info", "--sigs", store_path)
        return [word for word in finished.output.split() if ":" in word]

    async def is_valid(self, store_path: str) -> bool:
        """Whether the path counts as installed: what broke off may have left files behind."""
        checked = await self._run("nix-store", "--check-validity", store_path, check=False)
        return checked.code == 0

    def forget_narinfos(self) -> None:
        """Drops what the client remembers of substituters, absent paths among it."""
        shutil.rmtree(self.folder / "home/.cache", ignore_errors=True)

    async def _run(self, *command: str, check: bool = True) -> Finished:
        program, *rest = command
        if program == "nix":
            # The subcommand comes first, which may be two words.
            words = 2 if rest[0] == "store" else 1
            rest = [*rest[:words], "--store", str(self.store), *rest[words:]]
        else:
            rest = ["--store", str(self.store), *rest]
        command = (program, *rest, *self._options)
        finished = await run(*command, env=self._environment, patience=self.patience)
        if check and finished.code:
            raise AssertionError(f"{' '.join(finished.command)}:\n{finished.output}")
        return finished


async def run(*command: str, env: dict[str, str], patience: float = PATIENCE) -> Finished:
    """Runs `command` to its end, or kills it when it takes longer than `patience` seconds."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=env
    )
    try:
        async with asyncio.timeout(patience):
            output, _ = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        raise
    assert process.returncode is not None
    return Finished(command, process.returncode, output.decode(errors="replace"))
