"""Parts of the machine that some tests need."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def needs(program: str) -> None:
    """Does nothing where `program` is on the PATH; see `missing`."""
    if shutil.which(program) is None:
        missing(f"{program} is not installed")


def missing(reason: str) -> NoReturn:
    """Skips the test, except in CI: there, what is missing has to be installed."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
