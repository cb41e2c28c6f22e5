"""What every test gets: a leak check at its end, and one way of running hypothesis."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator, Iterator
from typing import Any

import obstore
import pytest
from hypothesis import HealthCheck, settings
from obstore.store import MemoryStore

from tests.support.leaks import LoopWatch, Snapshot, fail_on

# A machine that is busy must not fail a test; in CI the same examples come every time.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", _COMMON)
settings.register_profile("ci", _COMMON, derandomize=True, database=None)
settings.register_profile("thorough", _COMMON, max_examples=3000)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

_FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "may_leave(*kinds): `tasks`, `threads` or `files` that outlive this test on purpose, "
        "because a fixture of a wider scope started them late",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


def _is_checked(node: pytest.Item | pytest.Collector, kind: str) -> bool:
    """Whether `node` answers for that kind: a failed test has no peace to clean up in."""
    marker = node.get_closest_marker("may_leave")
    return not node.stash.get(_FAILED, False) and (marker is None or kind not in marker.args)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Has each event loop checked when its last fixture is done, before its runner closes it."""
    result = yield
    if isinstance(result, asyncio.Runner):
        watch = LoopWatch(result.get_loop())

        def check() -> None:
            if _is_checked(request.node, "tasks"):
                fail_on(watch.left())

        fixturedef.addfinalizer(check)
    return result


@pytest.fixture(autouse=True, scope="session")
def object_store_runtime() -> None:
    """Starts what serves all object stores of this process, and stays: no test brought it."""
    obstore.put(MemoryStore(), "begin", b"")


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves threads, files or sockets behind; set up first, it looks last."""
    before = Snapshot.take()
    yield
    left: list[str] = []
    if _is_checked(request.node, "threads"):
        left += before.new_threads()
    if _is_checked(request.node, "files"):
        left += before.new_files()
    fail_on(left)
