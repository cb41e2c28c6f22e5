"""Named steps of writing, where crash tests kill the process.

Every place between two writes that have to be seen in order calls `step` with its name. That does
nothing, unless the environment says `TVIXSTORE_KILL_AT=NAME`, or `NAME:3` for the third time: then
the process gets SIGKILL right there. A test runs a writer in a subprocess once for each of `STEPS`
and looks at what the reopened store shows.
"""

from __future__ import annotations

import os
import signal
from typing import Literal, get_args

Step = Literal[
    # Each group of changes in LMDB.
    "lmdb-changes-made",
    "lmdb-committed",
    # A chunk that becomes a file: empty yet, all of it there, under its final name.
    "chunk-file-begun",
    "chunk-file-written",
    "chunk-file-renamed",
    # A blob: its chunks are in the index, its list of chunks is in its table.
    "chunks-indexed",
    "blob-listed",
]
EvictionStep = Literal[
    # Eviction: path infos are deleted, objects are, within the transaction; their files are.
    "paths-evicted",
    "objects-freed",
    "chunk-files-unlinked",
]
STEPS: tuple[Step, ...] = get_args(Step)
EVICTION_STEPS: tuple[EvictionStep, ...] = get_args(EvictionStep)

_KILL_AT, _, _COUNT = os.environ.get("TVIXSTORE_KILL_AT", "").partition(":")
_left = int(_COUNT or 1)


def step(name: Step | EvictionStep) -> None:
    """Marks a step of writing; kills the process if a crash test asked for this one."""
    global _left
    if name == _KILL_AT:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
