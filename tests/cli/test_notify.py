"""What a supervisor is told, and when the watchdog is not fed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.supervisor import NotifySocket, abstract_name
from tests.support.virtual_clock import virtual_clock
from tvixstore.cli.notify import Notifier
from tvixstore.errors import ConfigError


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    address = abstract_name() if request.param == "abstract" else f"{tmp_path}/n"
    with NotifySocket(address) as made:
        yield made


def sound() -> None:
    return None


@virtual_clock
async def test_without_a_supervisor_nobody_is_told() -> None:
    async with Notifier.of({}) as notifier:
        notifier.ready("serving", sound)
        notifier.stopping(10)


def test_a_supervisor_is_told_of_the_start_and_of_the_end(supervisor: NotifySocket) -> None:
    @virtual_clock
    async def live() -> None:
        environ = {"NOTIFY_SOCKET": supervisor.address, "OTHER": "stays"}
        async with Notifier.of(environ) as notifier:
            assert environ == {"OTHER": "stays"}
            assert supervisor.heard() == []
            notifier.ready("serving on 127.0.0.1:9000", sound)
            await asyncio.sleep(3600)
            assert supervisor.heard() == ["READY=1\nSTATUS=serving on 127.0.0.1:9000"]
            notifier.stopping(90)
            (said,) = supervisor.heard()
            assert said.splitlines() == [
                "STOPPING=1",
                "EXTEND_TIMEOUT_USEC=110000000",
                "STATUS=draining: requests that run have 90 s",
            ]

    live()


def watched(supervisor: NotifySocket, **others: str) -> Notifier:
    return Notifier.of({"NOTIFY_SOCKET": supervisor.address, "WATCHDOG_USEC": "30000000", **others})


def test_the_watchdog_is_fed_twice_in_each_period_until_the_very_end(
    supervisor: NotifySocket,
) -> None:
    @virtual_clock
    async def live() -> None:
        async with watched(supervisor, WATCHDOG_PID=str(os.getpid())) as notifier:
            await asyncio.sleep(3600)
            assert supervisor.heard() == []
            notifier.ready("serving", sound)
            await asyncio.sleep(1)
            assert supervisor.heard()[1:] == ["WATCHDOG=1"]
            # A socket holds no more than some ten messages that nobody has read.
            await asyncio.sleep(105)
            assert supervisor.heard() == ["WATCHDOG=1"] * 7
            notifier.stopping(600)
            await asyncio.sleep(105)
            assert supervisor.heard()[1:] == ["WATCHDOG=1"] * 7

    live()
    assert supervisor.heard() == []


def test_a_watchdog_of_another_process_is_not_fed(supervisor: NotifySocket) -> None:
    @virtual_clock
    async def live() -> None:
        async with watched(supervisor, WATCHDOG_PID="1") as notifier:
            notifier.ready("serving", sound)
            await asyncio.sleep(300)

    live()
    assert supervisor.heard() == ["READY=1\nSTATUS=serving"]


def test_a_daemon_in_trouble_does_not_feed_the_watchdog_and_says_why(
    supervisor: NotifySocket,
) -> None:
    trouble: list[str] = []

    @virtual_clock
    async def live() -> None:
        async with watched(supervisor) as notifier:
            notifier.ready("serving", lambda: trouble[0] if trouble else None)
            await asyncio.sleep(1)
            assert supervisor.heard()[1:] == ["WATCHDOG=1"]
            trouble.append("the state is gone")
            await asyncio.sleep(300)
            assert supervisor.heard() == ["STATUS=in trouble: the state is gone"]
            trouble.clear()
            await asyncio.sleep(30)
            assert supervisor.heard() == ["WATCHDOG=1\nSTATUS=serving", "WATCHDOG=1"]

    live()


def test_a_supervisor_that_went_away_stops_nothing(
    supervisor: NotifySocket, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual_clock
    async def live() -> None:
        async with watched(supervisor) as notifier:
            supervisor.close()
            notifier.ready("serving", sound)
            await asyncio.sleep(300)

    live()
    assert [record.message for record in caplog.records] == ["notify.unheard"]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"NOTIFY_SOCKET": "relative"}, "NOTIFY_SOCKET is 'relative'"),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, "neither a path nor an @name"),
        ({"WATCHDOG_USEC": "0"}, "not a number of microseconds"),
        ({"WATCHDOG_USEC": "30s"}, "not a number of microseconds"),
        ({"WATCHDOG_USEC": "9" * 30}, "not a number of microseconds"),
    ],
)
def test_what_cannot_be_meant_is_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Notifier.of(environ)
