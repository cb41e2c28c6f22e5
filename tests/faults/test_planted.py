"""The checks of the matrix notice: each is shown a daemon that was made wrong."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from tests.faults.checks import wrong
from tests.faults.matrix import Cell
from tests.faults.scene import HURRIED, live_through

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.scene import Paths

pytestmark = pytest.mark.nix

# A NAR is believed, and goes out as it is. One that is only too short would still be found out by
# the front door, and the client would come back and get the rest from the healthy member.
PASSED_ON = """
from tvixstore.pathinfo.nix.download import Download
Download._judge = lambda self: None
"""
# Who could not say is taken for one who has nothing.
ABSENT = """
from tvixstore.policy.verdict import Verdict
Verdict.conclude = lambda self: None
"""
# A NAR that broke off goes on from nobody.
ALONE = """
from tvixstore.pathinfo.relay import NarRelay
from tvixstore.errors import Unavailable
async def _switch(self, error): raise Unavailable(str(error))
NarRelay._switch = _switch
"""


@pytest.mark.parametrize(
    ("planted", "cell", "complaint"),
    [
        (PASSED_ON, Cell("corruption", "NAR, start", 1), "small"),
        (ABSENT, Cell("refused", "narinfo", 0), "got ('built'"),
        (ALONE, Cell("reset", "NAR, middle", 1), "no nar.continued"),
    ],
    ids=["wrong NAR passed on", "unknown told as absent", "NAR not continued"],
)
async def test_a_planted_bug_is_found(
    planted: str, cell: Cell, complaint: str, paths: Paths, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        # What is wrong in the state is found while it is read.
        seen = await live_through(cell, paths, tmp_path, HURRIED, asyncio.Semaphore(), planted)
        raise AssertionError("\n".join(wrong(cell, seen)))
