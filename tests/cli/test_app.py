"""Commands that need no daemon: what they print where, and how they exit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tvixstore import __version__
from tvixstore.cli.find import find, load
from tvixstore.errors import ConfigError

UNSIGNED = '[[substituters]]\nurl = "https://cache.example.org"\nunsigned = true\n'


def run(
    *arguments: str, cwd: Path, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`tvix-store` with `arguments`, in `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", "tvixstore.cli", *arguments],
        cwd=cwd,
        env={**environment(), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def environment() -> dict[str, str]:
    """What a command finds in a test: nothing of the one who runs it."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "dumb"}


def test_the_version_is_told(tmp_path: Path) -> None:
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tvix-store {__version__}\n", "")


@pytest.mark.parametrize(
    "line", ["", "compose", "nonsense", "daemon --nonsense", "compose check a b"]
)
def test_wrong_usage_exits_with_2_and_says_what_would_be_right(tmp_path: Path, line: str) -> None:
    done = run(*line.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage: tvix-store" in done.stderr + done.stdout


def test_check_says_ok_and_warns(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text(UNSIGNED)
    done = run("compose", "check", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == "compose.toml: ok\n"
    assert done.stderr == (
        "compose.toml: warning: [[substituters]] #1 (cache.example.org): unsigned: "
        "whoever runs this cache decides what is in the paths it has (unsigned)\n"
    )


def test_a_strict_check_fails_on_warnings_and_counts_them(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text(UNSIGNED)
    done = run("compose", "check", "--strict", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    warning, end = done.stderr.splitlines()
    assert warning.endswith("(unsigned)")
    assert end == "tvix-store: compose.toml: 1 warning, and --strict lets none pass"
    (tmp_path / "compose.toml").write_text(f"[daemon]\nnegative_ttl = '48h'\n{UNSIGNED}")
    done = run("compose", "check", "--strict", cwd=tmp_path)
    assert done.returncode == 1 and ": 2 warnings, and" in done.stderr


def test_a_strict_check_of_a_file_without_warnings_says_ok(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text("")
    done = run("compose", "check", "--strict", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "compose.toml: ok\n", "")


def test_check_tells_all_mistakes_and_fails(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[daemon]\nhttp = 1\npriorty = 2\n")
    done = run("compose", "check", "x.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "tvix-store: x.toml: [daemon]: http: 1 is not an address: "
        'write "host:port", "[v6]:port", "unix:/path" or "off"\n'
        'tvix-store: x.toml: [daemon]: priorty: unknown key; did you mean "priority"?\n'
    )


def test_show_prints_the_tree_even_where_it_cannot_be_encoded(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text(UNSIGNED)
    assert "└─ far: root/negative" in run("compose", "show", cwd=tmp_path).stdout
    plain = run("compose", "show", cwd=tmp_path, environ={"PYTHONIOENCODING": "ascii"})
    assert plain.returncode == 0
    assert "far: root/negative" in plain.stdout


def test_a_mistake_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text("[daemon]\nx = 1\ny = 2\n")
    done = run("daemon", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.partition(": unknown")[0] for line in done.stderr.splitlines()] == [
        "tvix-store: compose.toml: [daemon]: x",
        "tvix-store: compose.toml: [daemon]: y",
    ]
    assert not (tmp_path / "state").exists()


def test_checking_and_showing_load_no_http_and_no_engine(tmp_path: Path) -> None:
    script = """
import sys
from tvixstore.cli.find import load
from tvixstore.compose import lint, lower, show
load(None)
print({"aiohttp", "lmdb", "prometheus_client"} & sys.modules.keys())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "set()\n"


def test_the_file_is_looked_for_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    system_wide = tmp_path / "etc.toml"
    environ = {"TVIXSTORE_COMPOSE": "/from/environment.toml"}
    assert find(None, {}, system_wide) is None
    system_wide.write_text("")
    assert find(None, {}, system_wide) == system_wide
    (tmp_path / "compose.toml").write_text("")
    assert find(None, {}, system_wide) == Path("compose.toml")
    assert find(None, {"TVIXSTORE_COMPOSE": ""}, system_wide) == Path("compose.toml")
    assert find(None, environ, system_wide) == Path("/from/environment.toml")
    assert find(Path("named.toml"), environ, system_wide) == Path("named.toml")


def test_a_named_file_that_is_absent_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(find(None, {"TVIXSTORE_COMPOSE": str(tmp_path / "absent.toml")}))


def test_the_packaged_default_keeps_its_state_where_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(None)
    assert config.daemon.state == tmp_path / "state"
    assert [substituter.name for substituter in config.substituters] == ["cache.nixos.org"]
