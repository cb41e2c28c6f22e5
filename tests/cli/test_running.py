"""How a client command ends that is interrupted."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tvixstore.cli.app import INTERRUPTED
from tvixstore.cli.running import UNKNOWN, _until_signalled
from tvixstore.errors import Unavailable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_what_breaks_because_of_an_interruption_is_an_interruption(
    capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    async def command() -> int:
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Unavailable("the connection was lost") from None
        return 0

    assert await _until_signalled(command) == INTERRUPTED
    assert capsys.readouterr().err == "tvix-store: interrupted\n"


async def test_what_breaks_by_itself_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    async def command() -> int:
        raise Unavailable("the connection was lost")

    assert await _until_signalled(command) == UNKNOWN
    assert capsys.readouterr().err == "tvix-store: the connection was lost\n"
