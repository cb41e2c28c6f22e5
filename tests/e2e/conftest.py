"""What end-to-end tests share: upstream caches made once a session by the real Nix tools."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import nix_client
from tests.support.caches import Workshop
from tests.support.nix_client import NixClient
from tests.support.parts import missing

EXPRESSION = Path(__file__).with_name("closure.nix")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.nix)


@dataclass
class Upstreams:
    """Paths that were built, and folders of signed caches with them, each made when asked for."""

    workshop: Workshop
    _folders: dict[str, Path] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.workshop.public_key

    def of(self, compression: str, *store_paths: str) -> Path:
        """The folder of a cache with the closures of `store_paths`."""
        name = f"cache-{len(store_paths)}-{store_paths[0][11:43]}-{compression}"
        if name not in self._folders:
            self._folders[name] = self.workshop.publish(name, compression, *store_paths)
        return self._folders[name]


@pytest.fixture(scope="session")
def upstreams(tmp_path_factory: pytest.TempPathFactory) -> Upstreams:
    if not nix_client.is_installed():
        missing("nix-bin is not installed")
    return Upstreams(Workshop(tmp_path_factory.mktemp("workshop")))


@pytest.fixture(scope="session")
def app(upstreams: Upstreams) -> str:
    """A closure of three: references, one to itself, symlinks, an executable, odd names."""
    return upstreams.workshop.build(EXPRESSION, "app")[0]


@pytest.fixture(scope="session")
def big(upstreams: Upstreams) -> str:
    """A path with a NAR of 60 MB."""
    return upstreams.workshop.build(EXPRESSION, "big")[0]


@pytest.fixture(scope="session")
def many(upstreams: Upstreams) -> str:
    """A path that refers to 60 small ones."""
    return upstreams.workshop.build(EXPRESSION, "many")[0]


@pytest.fixture
def client(tmp_path: Path, upstreams: Upstreams) -> NixClient:
    return NixClient(tmp_path / "client", upstreams.key)


@pytest.fixture
def second_client(tmp_path: Path, upstreams: Upstreams) -> NixClient:
    return NixClient(tmp_path / "second-client", upstreams.key)
