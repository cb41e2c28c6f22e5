"""`tvix-store key`: what it makes is what Nix makes, and secrets stay where they belong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.test_app import environment, run
from tests.support import nix_client
from tests.support.parts import missing
from tvixstore.cli.app import app
from tvixstore.errors import StoreError
from tvixstore.nix import SecretKey

NAME = "cache.example.org-1"


def test_a_key_goes_to_its_file_and_its_public_half_is_printed(tmp_path: Path) -> None:
    done = run("key", "generate", NAME, "--out", "ours.sec", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    file = tmp_path / "ours.sec"
    key = SecretKey.parse(file.read_text().strip())
    assert key.name == NAME
    assert done.stdout == f"{key.public_key}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    for arguments in (["ours.sec"], []):
        public = _piped("key", "public", *arguments, cwd=tmp_path, text=file.read_text())
        assert (public.returncode, public.stdout) == (0, f"{key.public_key}\n")


def test_without_a_file_the_secret_key_is_printed_and_nothing_else(tmp_path: Path) -> None:
    done = run("key", "generate", NAME, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert SecretKey.parse(done.stdout.removesuffix("\n")).name == NAME
    assert list(tmp_path.iterdir()) == []
    again = run("key", "generate", NAME, cwd=tmp_path)
    assert again.stdout != done.stdout


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("what was there")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("there", "dangling"):
        done = run("key", "generate", NAME, "--out", name, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"tvix-store: {name} exists, and keys are not replaced: name another file\n"
        )
    assert (tmp_path / "there").read_text() == "what was there"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    done = run("key", "generate", NAME, "--out", "no/such/folder", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "tvix-store: no/such/folder cannot be written: No such file or directory\n"
    )


@pytest.mark.parametrize("name", ["", "a:b", "a b", "a\n", "a\u2003b", "\x1b"])
def test_a_name_that_no_key_can_have_is_wrong_usage(name: str) -> None:
    done = CliRunner().invoke(app, ["key", "generate", name])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "without" in done.stderr and "colons" in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no secret key"),
        ("nonsense", "holds no secret key"),
        (f"{NAME}:c2VjcmV0", "holds no secret key"),
        ("k-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=", "holds a public key"),
    ],
)
def test_what_is_no_secret_key_is_told_apart_and_not_shown(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "file").write_text(text)
    for name in (str(tmp_path / "file"), "-"):
        done = CliRunner().invoke(app, ["key", "public", name], input=text)
        assert isinstance(done.exception, StoreError) and done.stdout == ""
        message = str(done.exception)
        assert message.startswith(f"{'standard input' if name == '-' else name} {told}")
        assert "key generate NAME" in message
        assert "c2VjcmV0" not in message


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    done = run("key", "public", "missing", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("tvix-store: missing cannot be read: No such file or directory")


@pytest.mark.nix
def test_nix_reads_our_keys_and_we_read_those_of_nix(tmp_path: Path) -> None:
    if not nix_client.is_installed():
        missing("nix-bin is not installed")
    ours = run("key", "generate", NAME, cwd=tmp_path)
    public = run_nix(tmp_path, "nix", "key", "convert-secret-to-public", text=ours.stdout.strip())
    assert public == _piped("key", "public", cwd=tmp_path, text=ours.stdout).stdout.strip()
    run_nix(tmp_path, "nix-store", "--generate-binary-cache-key", NAME, "n.sec", "n.pub")
    theirs = run("key", "public", "n.sec", cwd=tmp_path)
    assert theirs.stdout.strip() == (tmp_path / "n.pub").read_text().strip()


def run_nix(folder: Path, *command: str, text: str = "") -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=nix_client.environment(folder / "nix"),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _piped(*arguments: str, cwd: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tvixstore.cli", *arguments],
        cwd=cwd,
        env=environment(),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
