"""`tvix-store` as a command that comes to its end, or is ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon import PATIENCE, PROGRAM


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """Nothing of the one who runs the tests but where programs are."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "dumb"}


async def begin(*arguments: str, cwd: Path | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=environment(),
        limit=1 << 24,
    )


async def leave(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Reads the beginning of its output and then no more; how it ends, and what it says of that."""
    assert process.stdout is not None and process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        await process.stdout.readexactly(10)
        process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        return await process.wait(), (await process.stderr.read()).decode()


async def finish(process: asyncio.subprocess.Process, stdin: bytes = b"") -> Done:
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(stdin)
    except BaseException:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()
        raise
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def tvix_store(*arguments: str, cwd: Path | None = None, stdin: bytes = b"") -> Done:
    """Runs it with `arguments` in `cwd`."""
    return await finish(await begin(*arguments, cwd=cwd), stdin)
