from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.filesystem.places import Nix, Places, Shelf, few_pools
from tests.support.parts import missing
from tvixstore.pools import Pools


@pytest.fixture
def pools() -> Iterator[Pools]:
    with few_pools() as opened:
        yield opened


@pytest.fixture
def shelf(pools: Pools) -> Shelf:
    return Shelf(pools)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Nix:
    if shutil.which("nix-store") is None:
        missing("nix-bin is not installed")
    return Nix(tmp_path_factory.mktemp("nix"))
