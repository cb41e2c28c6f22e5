"""What a store path may be called: what real Nix takes, and what later Nix refuses besides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Done, tvix_store
from tvixstore.errors import InvalidData
from tvixstore.nix import check_new_name

if TYPE_CHECKING:
    from tests.filesystem.places import Nix

LONGEST = "a" * 211
ALLOWED = [
    *("a", "A-Z", "0", "a+b-c._?=", "=", "?", "-x", "--flat", LONGEST),
    # A dot in front is no harm, but for those below.
    *(".a", "..a", "...", ".a-b", "...-a"),
]
REFUSED = [
    *("", LONGEST + "a", "a b", " ", "a/b", "/", "a\\b", "a:b", "a@b", "a~", "a$b", "a*", "a%20b"),
    *("é", "a\n", "a\x1b[31m", "\udcff", "a,b", "a;b", "(a)", "a&b", "#a", "a!", "'a'", '"a"'),
]
# By later Nix: `.` and `..` alone, or before the first dash.
REFUSED_LATER = [".", "..", ".-", "..-", ".-a", "..-a-b"]


@pytest.mark.nix
def test_nix_takes_and_refuses_the_same_names(nix: Nix, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    for name in [*ALLOWED, *REFUSED, *REFUSED_LATER]:
        taken = by_nix(nix, tmp_path, name)
        if taken is None:
            assert name in REFUSED, name
        else:
            # Our Nix is older than the last of the rules.
            assert name in [*ALLOWED, *REFUSED_LATER] and taken.endswith(f"-{name}")


def by_nix(nix: Nix, folder: Path, name: str) -> str | None:
    store = ("--store", folder / "store")
    try:
        told = nix.run("nix", "store", "add-path", *store, "--name", name, folder / "file")
    except AssertionError as error:
        assert "store path" in str(error), error
        return None
    return told.decode().strip()


@pytest.mark.parametrize("name", [*REFUSED, *REFUSED_LATER], ids=ascii)
def test_a_name_that_no_new_path_may_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidData, match="is not a name for a new store path: take up to 211"):
        check_new_name(name)


async def test_a_path_has_the_name_that_nix_gives_it(nix: Nix, tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    (tmp_path / "file").write_text("text\n")
    for name in (LONGEST, "--flat"):
        line = ("import", "--compose", "compose.toml", "--name", name, "file")
        taken = by_nix(nix, tmp_path, name)
        assert await tvix_store(*line, cwd=tmp_path) == Done(0, f"{taken}\n", "")


async def test_a_bad_name_is_wrong_usage_before_anything_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    for name in ("", "a\x1b[31m"):
        for command in ("import", "add-nar"):
            # There is no such compose file.
            line = (command, "--compose", "none.toml", "--name", name, "file")
            done = await tvix_store(*line, cwd=tmp_path)
            assert (done.code, done.out) == (2, "")
            assert "is not a name for a new store path" in unwrapped(done.err), name
            assert "\x1b[31m" not in done.err


def unwrapped(text: str) -> str:
    """What typer put into a box."""
    return " ".join(text.replace("│", "").split())
