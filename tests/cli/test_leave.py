"""The daemon's end, with a thread that does not come home."""

from __future__ import annotations

import subprocess
import sys

STUCK = """
import sys, threading
from tvixstore.cli.leaving import leave
from tvixstore.pools import Pools

async def main():
    pools = Pools()
    started = threading.Event()
    def look_up():
        started.set()
        threading.Event().wait()
    asking = asyncio.create_task(pools.dns.abandon(look_up))
    await asyncio.to_thread(started.wait)
    asking.cancel()
    pools.close()

import asyncio
asyncio.run(main())
print("stopped")
"""


def run(ending: str, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", STUCK + ending]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds)


def test_a_lookup_that_hangs_does_not_keep_the_process() -> None:
    ended = run("leave(0)", 60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped\n", "")


def test_without_leaving_it_would_be_kept() -> None:
    try:
        run("sys.exit(0)", 2)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError("the thread was not stuck: this shows nothing")
