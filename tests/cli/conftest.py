from __future__ import annotations

import pytest

from tests.filesystem.places import Nix
from tests.support.nix_client import is_installed
from tests.support.parts import missing


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Nix:
    if not is_installed():
        missing("nix-bin is not installed")
    return Nix(tmp_path_factory.mktemp("nix"))
