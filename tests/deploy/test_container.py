"""The Containerfile: linted, and its steps followed as far as they can be without containers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.daemon import Daemon

ROOT = Path(__file__).parent.parent.parent
CONTAINERFILE = ROOT / "examples" / "container" / "Containerfile"


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction in capitals, and what follows it on one line."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text("utf-8"), flags=re.M)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, " ".join(rest.split())


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint), "--no-color", "--failure-threshold", "style", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_linter_finds_nothing_in_it() -> None:
    done = lint(CONTAINERFILE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_linter_finds_an_image_without_a_version(tmp_path: Path) -> None:
    copy = tmp_path / "Containerfile"
    copy.write_text(CONTAINERFILE.read_text("utf-8").replace(":3.13-slim", ""))
    assert "DL3006" in lint(copy).stdout


def test_what_is_copied_suffices_for_the_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for copied in [
        rest for word, rest in instructions() if word == "COPY" and "--from" not in rest
    ]:
        *names, target = copied.split()
        for name in names:
            assert (ROOT / name).exists(), name
            if target == "./":
                shutil.copy(ROOT / name, source)
            elif not target.startswith("/"):
                shutil.copytree(ROOT / name, source / target)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("tvixstore-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names_in_it = set(archive.namelist())
    kept = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "tvixstore").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert kept <= names_in_it
    shared = {str(file.relative_to(ROOT)) for file in (ROOT / "share").rglob("*") if file.is_file()}
    prefix = re.compile(r"tvixstore-[^/]+\.data/data/")
    assert shared == {prefix.sub("", name) for name in names_in_it if prefix.match(name)}


def test_it_runs_as_somebody_who_is_not_root() -> None:
    (user,) = [rest for word, rest in instructions() if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    # Nothing that needs root comes after it.
    words = [word for word, _ in instructions()]
    assert {"RUN", "COPY", "ADD"}.isdisjoint(words[words.index("USER") :])


def test_signals_reach_the_daemon_itself() -> None:
    found = dict(instructions())
    assert found["STOPSIGNAL"] == "SIGTERM"
    # A list of words: no shell stands between.
    program = json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"])
    assert program[1:] == ["daemon", "--compose", "/etc/tvixstore/compose.toml"]
    assert f"examples/container/compose.toml {program[3]}" in [rest for _, rest in instructions()]


def check_health(program: str) -> int:
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


async def test_the_health_check_passes_while_the_daemon_serves(tmp_path: Path) -> None:
    check = json.loads(dict(instructions())["HEALTHCHECK"].partition("CMD ")[2])
    assert check[1] == "-c" and "127.0.0.1:9000" in check[2]
    daemon = Daemon(tmp_path)
    async with daemon:
        program = check[2].replace("127.0.0.1:9000", f"127.0.0.1:{daemon.port}")
        assert check_health(program) == 0
    assert check_health(program) != 0


def test_what_it_declares_is_what_the_compose_file_says() -> None:
    compose = (ROOT / "examples" / "container" / "compose.toml").read_text("utf-8")
    found = dict(instructions())
    assert json.loads(found["VOLUME"]) == re.findall(r'^state = "(.*)"$', compose, re.M)
    assert found["EXPOSE"].split() == re.findall(r'^(?:http|grpc) = "\[::\]:(\d+)"$', compose, re.M)
