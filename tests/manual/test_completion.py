"""What shells offer after TAB. Those that are not installed are left out; bash always is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.parts import needs

SHARE = Path(__file__).parents[2] / "share"
BASH = SHARE / "bash-completion" / "completions" / "tvix-store"
ZSH = SHARE / "zsh" / "site-functions" / "_tvix-store"
FISH = SHARE / "fish" / "vendor_completions.d" / "tvix-store.fish"


def output(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def in_bash(words: list[str], folder: Path) -> tuple[set[str], set[str]]:
    """What is offered for the last of `words`, and what of readline's is asked for or declined."""
    script = (
        f'source "{BASH}"\n'
        "asked=()\n"
        'compopt() { asked+=("$@"); }\n'
        'COMP_WORDS=("$@")\n'
        "COMP_CWORD=$(($# - 1))\n"
        "_tvix_store\n"
        'printf "%s\\n" "${COMPREPLY[@]}" ! "${asked[@]}"\n'
    )
    command = ["bash", "--norc", "-u", "-c", script, "bash", *words]
    offered, _, asked = output(command, folder).partition("!\n")
    return set(offered.split()), set(asked.split()) - {"-o", "+o"}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("im", {"import"}),
        ("na", {"nar", "nar-hash"}),
        ("compose ", {"check", "show"}),
        ("compose check --h", {"--help"}),
        ("key gen", {"generate"}),
        ("import --f", {"--flat"}),
        ("copy --compression ", {"none", "zstd", "xz"}),
        ("copy --json --compression z", {"zstd"}),
        ("copy --compression = z", {"zstd"}),
        ("copy --compression =", {"none", "zstd", "xz"}),
        # What an option takes is no command, and neither is what follows one.
        ("--version im", {"import"}),
        ("cat --offset 3 --len", {"--length"}),
        ("import copy --fl", {"--flat"}),
        # bash takes URLs apart.
        ("copy --from https : //example.org --no-c", {"--no-check-sigs"}),
        ("pins ", set()),
        ("import -- --fl", set()),
    ],
)
def test_bash_offers(line: str, offered: set[str], tmp_path: Path) -> None:
    assert in_bash(["tvix-store", *line.split(" ")], tmp_path)[0] == offered


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        # Files are readline's, unless it is told otherwise.
        ("daemon --compose ", set()),
        ("import ", set()),
        ("copy --from https : //example.org x", set()),
        ("extract PATH ", {"default", "dirnames"}),
        ("extract --from grpc+unix : ///x PATH ", {"default", "dirnames"}),
        ("extract PATH DIR ", {"default"}),
        ("import --name ", {"default"}),
        ("pins ", {"default"}),
        ("im", {"default"}),
    ],
)
def test_bash_completes_files_only_where_there_are_some(
    line: str, asked: set[str], tmp_path: Path
) -> None:
    assert in_bash(["tvix-store", *line.split(" ")], tmp_path)[1] == asked


def test_fish_offers(tmp_path: Path) -> None:
    needs("fish")
    (tmp_path / "compose.toml").touch()
    lines = {
        "tvix-store im": ["import"],
        "tvix-store compose ": ["check", "show"],
        "tvix-store import --fl": ["--flat"],
        "tvix-store import copy --fl": ["--flat"],
        "tvix-store copy --compression ": ["none", "xz", "zstd"],
        "tvix-store daemon --compose co": ["compose.toml"],
        "tvix-store pins ": [],
    }
    script = f"source {FISH}\n" + "".join(f"complete -C '{line}'\necho !\n" for line in lines)
    told = output(["fish", "--no-config", "-c", script], tmp_path).split("!\n")[:-1]
    for wanted, each in zip(lines.values(), told, strict=True):
        offered = {line.split("\t")[0] for line in each.splitlines()}
        # Later versions also offer what has the letters anywhere.
        assert set(wanted) <= offered and bool(wanted) == bool(offered)


def test_zsh_parses_its_script(tmp_path: Path) -> None:
    needs("zsh")
    assert output(["zsh", "-f", "-n", str(ZSH)], tmp_path) == ""
