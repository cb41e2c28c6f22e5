"""What somebody can do who is not root: what he cannot read or write is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import environment

# All is imported, and done once, before privileges go: Python's own files may be only root's.
PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
import tvixstore
from tvixstore.errors import TreeError
folder = Path(sys.argv[1])
NOBODY = 65534
COMPOSE = '[blobservices.root]\\ntype = "local"\\npath = "./state"\\n'
COMPOSE += COMPOSE.replace("blob", "directory") + COMPOSE.replace("blob", "pathinfo")

async def work(name):
    told = {}
    async with tvixstore.loads(COMPOSE, folder=folder / name) as store:
        info = await tvixstore.import_path(store, folder / "open")
        told["path"] = str(info.store_path)
        await tvixstore.extract(store, told["path"], folder / name / "out")
        told["out"] = (folder / name / "out/f").read_text()
        for place in ("closed", "shut"):
            try:
                await tvixstore.import_path(store, folder / place)
                told[place] = "imported"
            except TreeError as error:
                told[place] = str(error)
        try:
            await tvixstore.extract(store, told["path"], folder / "roots" / name)
            told["roots"] = "extracted"
        except TreeError as error:
            told["roots"] = str(error)
    return told

asyncio.run(work("first"))
os.setgroups([])
os.setgid(NOBODY)
os.setuid(NOBODY)
print(json.dumps(asyncio.run(work("second"))))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may look into, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_nobody_imports_and_extracts_what_he_may(folder: Path) -> None:
    for name, mode in (("open", 0o755), ("closed", 0o755), ("shut", 0o700)):
        (folder / name).mkdir()
        (folder / name / "f").write_text("text")
        (folder / name).chmod(mode)
    (folder / "closed/f").chmod(0o600)
    (folder / "roots").mkdir(mode=0o755)
    for name in ("first", "second"):
        (folder / name).mkdir()
    os.chown(folder / "second", 65534, 65534)
    done = subprocess.run(
        (sys.executable, "-c", PROGRAM, str(folder)),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.pop("path").endswith("-open")
    assert told == {
        "out": "text",
        "closed": f"{folder}/closed/f cannot be read: Permission denied",
        "shut": f"{folder}/shut cannot be read: Permission denied",
        "roots": f"{folder}/roots/second cannot be written: Permission denied",
    }
