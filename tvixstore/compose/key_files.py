"""Secret key files: read when something starts that signs, and said of them what to do."""

from __future__ import annotations

import stat
from pathlib import Path

from tvixstore.errors import ConfigError, InvalidData
from tvixstore.nix import PublicKey, SecretKey

_GENERATE = "make one with `tvix-store key generate NAME --out FILE`"
# A key takes a line; this bounds what a wrong path (a disk, a log) costs.
_LONGEST = 4096


def load_key_file(path: Path, where: str = "") -> SecretKey:
    """The secret key in the file `path`. Raises `ConfigError`, a line that begins with `where`."""
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        remedy = "name a file that this user can read"
        if isinstance(error, FileNotFoundError):
            remedy = _GENERATE
        raise ConfigError(f"{where}{path} cannot be read: {reason}: {remedy}") from None
    try:
        return parse_secret_key(data)
    except InvalidData as error:
        raise ConfigError(f"{where}{path} {error}") from None


def parse_secret_key(data: bytes) -> SecretKey:
    """The one key in `data`. Raises `InvalidData`, which tells nothing of what is in there."""
    text = data.strip().decode("utf-8", "replace")
    try:
        return SecretKey.parse(text)
    except InvalidData:
        if _is_public(text):
            raise InvalidData(
                f"holds a public key, and signing takes the secret one: {_GENERATE}"
            ) from None
        raise InvalidData(
            f'holds no secret key, which is one line "name:base64" of 64 bytes: {_GENERATE}'
        ) from None


def open_to_others(path: Path) -> str | None:
    """What to say of a key file that others than its owner may open, or that is not there."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return f"{path} is not a file on this machine"
    if not stat.S_ISREG(mode):
        return f"{path} is not a file on this machine"
    if mode & 0o077:
        return (
            f"{path} is open to others than its owner (mode {stat.S_IMODE(mode):04o}), and whoever "
            f"reads it can sign as you: chmod 600 {path}"
        )
    return None


def _is_public(text: str) -> bool:
    try:
        PublicKey.parse(text)
    except InvalidData:
        return False
    return True
