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
        if record.levelno >= logging.ERROR
        and record.name.split(".")[0] in ("grpclib", "asyncio")
        and not _is_a_needless_wakeup_of_grpcio(record)
    ]
    assert not errors


def _is_a_needless_wakeup_of_grpcio(record: logging.LogRecord) -> bool:
    """grpcio wakes every event loop that it was used in, and only one finds something to read;
    the others say so loudly, with nothing amiss (grpc/grpc#25364)."""
    exception = record.exc_info[1] if record.exc_info else None
    return isinstance(exception, BlockingIOError) and "PollerCompletionQueue" in record.getMessage()
