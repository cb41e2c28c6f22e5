"""What is quick to start is so because of what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import environment

# Runs a command, and says at its end what of `sys.argv[1]` it has loaded.
LOADED = """
import os, sys
watched = sys.argv.pop(1).split()
from tvixstore.cli import main
try:
    main()
finally:
    print(*[name for name in watched if name in sys.modules], file=sys.stderr)
"""
SERVERS = "tvixstore.rpc.server tvixstore.http.server tvixstore.compose.composition"
PATH = "/nix/store/jbwpvmf637qgh4y6sqxf7wzrc0bvhv9v-app-2.0"


@pytest.mark.parametrize(
    ("line", "code", "loaded"),
    [
        ("--help", 0, "aiohttp grpclib lmdb tvixstore.compose"),
        ("import --help", 0, "aiohttp grpclib lmdb tvixstore.compose"),
        ("nar-hash .", 0, f"aiohttp grpclib lmdb tvixstore.compose tvixstore.blob {SERVERS}"),
        (f"ls --from grpc+unix:///nowhere {PATH}", 4, SERVERS),
    ],
)
def test_a_command_loads_no_more_than_it_needs(
    line: str, code: int, loaded: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, loaded, *line.split()],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (code, ""), done.stderr
