"""Node types of others: a package that is installed, found, checked, shown and run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_app import environment
from tests.compose.test_load import mistakes_in
from tests.compose.test_long import MEMORY, long
from tests.library.stores import put
from tvixstore import loads
from tvixstore.compose import lower, show
from tvixstore.compose.load import load_text
from tvixstore.compose.plugin import find_node_type, installed
from tvixstore.errors import StorageFull

PACKAGE = Path(__file__).parent / "plugin"
COUNTED = long(
    blobservices="""
[blobservices.root]
type = "counting"
inner = "memory://"
most = 4
"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package is installed in."""
    target = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*install, *offline, "--target", target, PACKAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def plugin(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package, as if it had always been there."""
    forget()
    monkeypatch.syspath_prepend(site)
    yield
    forget()
    for name in [name for name in sys.modules if name.startswith("tvixstore_counting")]:
        del sys.modules[name]


def forget() -> None:
    installed.cache_clear()
    find_node_type.cache_clear()


@pytest.mark.usefixtures("plugin")
async def test_a_node_of_theirs_does_its_work() -> None:
    async with loads(COUNTED) as store:
        assert repr(store.blobs) == "CountingBlobService(inner=memory, most=4, written=0)"
        await put(store)
        with pytest.raises(StorageFull, match="of 4 blobs"):
            await put(store, "more")


@pytest.mark.usefixtures("plugin")
def test_it_is_shown_as_any_other() -> None:
    config = load_text(COUNTED, "compose.toml", Path("/etc"), {})
    lines = show(config.daemon, lower(config)).splitlines()
    start = lines.index("blobs")
    assert lines[start + 1 : start + 3] == [
        "  root (counting) most=4",
        "  └─ root.inner (memory)",
    ]


@pytest.mark.usefixtures("plugin")
def test_its_keys_are_checked_as_any_others() -> None:
    assert mistakes_in(COUNTED.replace("most = 4", 'most = "4"\nmots = 1')) == [
        '[blobservices.root]: most: "4" is not a whole number',
        '[blobservices.root]: mots: unknown key; did you mean "most"?',
    ]
    (mistake,) = mistakes_in(COUNTED.replace("memory://", "nobody"))
    assert mistake.startswith('[blobservices.root]: inner: names "nobody", and no node of ')


@pytest.mark.usefixtures("plugin")
def test_it_is_for_the_services_it_says() -> None:
    text = long(directoryservices=MEMORY["directoryservices"].replace("memory", "counting"))
    (mistake,) = mistakes_in(text)
    assert mistake.startswith(
        '[directoryservices.root]: type: "counting" is for [blobservices] only: write one of '
    )


@pytest.mark.usefixtures("plugin")
def test_one_that_cannot_be_loaded_names_its_package() -> None:
    (mistake,) = mistakes_in(COUNTED.replace('"counting"', '"broken"'))
    assert mistake.startswith(
        '[blobservices.root]: type: the node type "broken" of tvixstore-counting cannot be loaded '
    )
    assert mistake.endswith(": repair or remove that package")


@pytest.mark.usefixtures("plugin")
def test_a_typo_finds_theirs_too() -> None:
    assert mistakes_in(COUNTED.replace('"counting"', '"counter"')) == [
        '[blobservices.root]: type: "counter" is unknown; did you mean "counting"?'
    ]


def test_the_command_finds_it(site: Path, tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text(COUNTED)
    command = [sys.executable, "-m", "tvixstore.cli", "compose", "show"]
    environ = environment()
    without = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert without.returncode == 1
    assert '"counting" is unknown' in without.stderr
    environ["PYTHONPATH"] += f":{site}"
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "root (counting) most=4" in done.stdout
