"""A file system of a few MiB, to be filled up: `with small_disk(tmp_path, megabytes=8) as path`."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.parts import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def small_disk(parent: Path, megabytes: int) -> Iterator[Path]:
    """Mounts a tmpfs below `parent`; skips the test where that is not allowed."""
    path = parent / "small-disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", os.fspath(path)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        missing("there is no `mount` here")
    if mounted.returncode:
        missing(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    try:
        yield path
    finally:
        # Lazily: a failed test may still have files open, and the mount must not outlive it.
        subprocess.run(["umount", "-l", os.fspath(path)], check=True)


def fill(path: Path, leave: int = 0) -> Path:
    """Writes a file that leaves `leave` bytes of the file system free; remove it to have them."""
    ballast = path / "ballast"
    block = bytes(4096)
    with ballast.open("wb", buffering=0) as file:
        while True:
            status = os.statvfs(path)
            if status.f_bavail * status.f_frsize <= leave:
                return ballast
            try:
                file.write(block)
            except OSError:
                return ballast
