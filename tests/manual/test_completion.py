"""What shells offer after TAB, as they themselves say. `make test` installs those that are not
there; bash always is."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
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
        ("import a b ", set()),
        ("ls ", set()),
        ("cat ", set()),
        ("nar ", set()),
        ("nar-hash ", set()),
        ("extract ", set()),
        ("add-nar ", set()),
        ("add-nar --narinfo ", set()),
        ("unpin ", set()),
        ("ls PATH ", {"default"}),
        ("add-nar --public-keys ", {"default"}),
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


# In a folder with one file, and one folder.
LINES = {
    "im": {"import"},
    "compose ": {"check", "show"},
    "key gen": {"generate"},
    "import --fl": {"--flat"},
    "import copy --fl": {"--flat"},
    "ls --js": {"--json"},
    "copy --compression ": {"none", "xz", "zstd"},
    "daemon --compose co": {"compose.toml"},
    "import ": {"compose.toml", "folder/"},
    "import x ": {"compose.toml", "folder/"},
    **{f"{command} ./f": {"./folder/"} for command in ("ls", "cat", "nar", "nar-hash", "extract")},
    "extract x ": {"folder/"},
    "add-nar --narinfo ": {"compose.toml", "folder/"},
    "unpin ": {"compose.toml", "folder/"},
    "pins ": set(),
    "import --name ": set(),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "folder").mkdir(parents=True)
    (made / "compose.toml").touch()
    return made


def test_fish_offers(folder: Path) -> None:
    needs("fish")
    asked = "".join(f"complete -C 'tvix-store {line}'\necho !\n" for line in LINES)
    told = output(["fish", "--no-config", "-c", f"source {FISH}\n{asked}"], folder)
    for (line, wanted), each in zip(LINES.items(), told.split("!\n")[:-1], strict=True):
        offered = {line.split("\t")[0] for line in each.splitlines()}
        # It does not count arguments, and later versions also offer what has the letters anywhere.
        assert wanted <= offered and bool(wanted) == bool(offered), line


# An interactive zsh that completes each of the lines, and notes what is offered for it.
PROBE = r"""
fpath=({folder} $fpath)
autoload -Uz compinit && compinit -D -u
compadd() {{
    local -a hits
    if [[ ${{@[1,(i)(-|--)]}} == *-(O|A|D)\ * ]]; then
        builtin compadd "$@"
        return
    fi
    builtin compadd -A hits "$@"
    print -rl -- "${{hits[@]}}" >>|{offered}
    builtin compadd "$@"
}}
zle-line-init() {{
    for line in "${{(f)$(<{lines})}}"; do
        print -r -- "! $line" >>|{offered}
        BUFFER="tvix-store $line" CURSOR=$#BUFFER
        zle list-choices
    done
    exit 0
}}
zle -N zle-line-init
"""


def test_zsh_offers(folder: Path, tmp_path: Path) -> None:
    needs("zsh")
    lines, offered, probe = (tmp_path / name for name in ("lines", "offered", "probe"))
    lines.write_text("\n".join(LINES))
    probe.write_text(PROBE.format(folder=ZSH.parent, offered=offered, lines=lines))
    on_terminal(["zsh", "-f", "-i"], f"source {probe}\n", folder)
    told = offered.read_text().split("! ")[1:]
    for (line, wanted), each in zip(LINES.items(), told, strict=True):
        said, *found = each.splitlines()
        assert said.strip() == line.strip()
        words = set(filter(None, found))
        # What is there and no file is named without what is in front of it.
        names = {word.removeprefix("./").removesuffix("/") for word in wanted}
        if not wanted:
            # Options, where nothing else can be said.
            assert all(word.startswith("-") for word in words), line
        else:
            assert names == words, line


def on_terminal(command: list[str], typed: str, folder: Path) -> None:
    """Runs `command` at a terminal of its own, where `typed` is typed."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        os.write(ours, typed.encode())
        # Until nobody has the other end any more, which Linux calls an error.
        with suppress(OSError):
            while os.read(ours, 1 << 16):
                pass
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_zsh_parses_its_script(tmp_path: Path) -> None:
    needs("zsh")
    assert output(["zsh", "-f", "-n", str(ZSH)], tmp_path) == ""
