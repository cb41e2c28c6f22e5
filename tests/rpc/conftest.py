"""What every test of this room gets: nothing that a client does may be an error in the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def no_errors_of_libraries(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    errors = [
        record.getMessage()
        for when in ("setup", "call")
        for record in caplog.get_records(when)
        if record.levelno >= logging.ERROR and record.name.split(".")[0] in ("grpclib", "asyncio")
    ]
    assert not errors
