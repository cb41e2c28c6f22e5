"""Which compose file a command works on, and what is in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvixstore.compose import Config

VARIABLE = "TVIXSTORE_COMPOSE"
SYSTEM_WIDE = Path("/etc/tvixstore/compose.toml")
PACKAGED = "the packaged default.toml"


def find(
    named: Path | None,
    environ: Mapping[str, str] = os.environ,
    system_wide: Path = SYSTEM_WIDE,
) -> Path | None:
    """The file `named`, or else the first there is where we look; `None`: the packaged default.

    A file that was named, in the environment too, counts whether it is there or not: to take
    another one silently would be a surprise.
    """
    if named is not None:
        return named
    if environ.get(VARIABLE):
        return Path(environ[VARIABLE])
    for path in (Path("compose.toml"), system_wide):
        if os.path.lexists(path):
            return path
    return None


def load(path: Path | None) -> Config:
    """The composition in `path`, or the packaged default. Raises `ConfigError`."""
    from tvixstore.compose import load_file, load_text

    if path is not None:
        return load_file(path)
    from importlib.resources import files

    text = files("tvixstore.compose").joinpath("default.toml").read_text("utf-8")
    # It has no folder of its own to keep state in: the one that the command is run in serves.
    return load_text(text, PACKAGED, Path.cwd())
