"""Running a client command: an event loop of its own, signals, and the exit code of an error."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NoReturn

import typer

from tvixstore.cli.app import FAILED, INTERRUPTED, PROGRAM
from tvixstore.errors import AbsentPath, CorruptData, StoreError, Unavailable
from tvixstore.log import redact

ABSENT: Final = 3
UNKNOWN: Final = 4
CORRUPT: Final = 5
# What a process that SIGPIPE ends is said to have exited with.
BROKEN_PIPE: Final = 141

# What a write fails with that is nobody's mistake here.
_UNWRITTEN: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

# Events that the error with which a command ends says again.
_SAID_ANYWAY: Final = frozenset({"peer.credentials_refused", "upstream.credentials_refused"})


def exit_code(error: StoreError) -> int:
    """What a command ends with when `error` ended it."""
    codes: dict[type[StoreError], int] = {
        AbsentPath: ABSENT,
        Unavailable: UNKNOWN,
        CorruptData: CORRUPT,
    }
    return next((codes[kind] for kind in type(error).__mro__ if kind in codes), FAILED)


def say(error: StoreError) -> None:
    """Tells of it on standard error, a line each."""
    for line in redact(str(error)).splitlines():
        typer.echo(f"{PROGRAM}: {line}", err=True)


def run(command: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Runs `command` in a loop of its own, and ends the process with the exit code it returns.

    SIGINT and SIGTERM cancel it, and the process ends with 130 when it has put its things away; the
    second one ends it at once. When nobody reads its output any more, it ends with 141.
    """
    from tvixstore.cli.leaving import leave, loop_factory
    from tvixstore.log import configure

    configure("error", without=_SAID_ANYWAY)
    # What was loaded stays, and next to nothing of what comes is a cycle: as in the daemon.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            code = runner.run(_until_signalled(command))
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still to be written at the end of the process would be told of then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    except OSError as error:
        # A disk that is full under `> FILE`; what a store cannot write it says itself.
        if error.errno not in _UNWRITTEN or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        typer.echo(
            f"{PROGRAM}: standard output, or a temporary file, cannot be written: {error.strerror}",
            err=True,
        )
        code = FAILED
    leave(code)


async def _until_signalled(command: Callable[[], Awaitable[int]]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(command())
    signals = (signal.SIGINT, signal.SIGTERM)

    interrupted = False

    def signalled() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in signals:
        loop.add_signal_handler(number, signalled)
    try:
        return await task
    except (StoreError, asyncio.CancelledError) as error:
        # What breaks once it is cancelled, as a call does that was just being made, says no more.
        if isinstance(error, StoreError) and not interrupted:
            say(error)
            return exit_code(error)
        typer.echo(f"{PROGRAM}: interrupted", err=True)
        return INTERRUPTED
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
