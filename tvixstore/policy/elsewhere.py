"""Whether what is asked for could be had from somebody else, should it not come.

Who brings something by trying again and again can do so in peace where nobody else has it. Where
somebody may, whoever waits for it is told of the trouble, and turns to him meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_elsewhere: ContextVar[bool] = ContextVar("elsewhere", default=False)


def is_elsewhere() -> bool:
    """Whether the caller has somebody else to turn to."""
    return _elsewhere.get()


@contextmanager
def elsewhere(there_is: bool) -> Iterator[None]:
    """For calls inside: whether there is somebody else."""
    token = _elsewhere.set(there_is)
    try:
        yield
    finally:
        _elsewhere.reset(token)
