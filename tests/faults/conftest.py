"""What the tests of the matrix share: the paths that the upstreams have."""

from __future__ import annotations

import pytest

from tests.faults.scene import Paths
from tests.support import nix_client
from tests.support.parts import missing


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    if not nix_client.is_installed():
        missing("nix-bin is not installed")
    return Paths.make(tmp_path_factory.mktemp("paths"))
