"""docs/deploying.md: each block is tried as far as it can be, or says that it was not run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from tests.support.nix_client import environment
from tvixstore.compose import load_text

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "deploying.md").read_text("utf-8")
UNITS = ROOT / "examples" / "systemd"
BLOCKS = re.findall(r"<!-- (.*?) -->\n```(\w+)\n(.*?)```", TEXT, re.S)


def block(language: str) -> str:
    found: list[str] = [
        text for mark, kind, text in BLOCKS if kind == language and mark.startswith("tested by")
    ]
    assert len(found) == 1
    return found[0]


def test_every_block_is_tested_or_says_that_it_is_not() -> None:
    assert len(BLOCKS) == TEXT.count("\n```") // 2
    for mark, _, text in BLOCKS:
        if mark.startswith("not tested: "):
            assert text.startswith("# (not run by the tests"), text
        else:
            assert (ROOT / mark.removeprefix("tested by ")).is_file(), mark


def test_files_that_are_named_are_there() -> None:
    for name in re.findall(r"\bexamples/[\w./*-]+", TEXT):
        assert list(ROOT.glob(name)), name


def test_systemd_takes_the_drop_in_for_a_socket(tmp_path: Path) -> None:
    for unit in UNITS.glob("tvixstore*.s*"):
        text = unit.read_text("utf-8").replace("/opt/tvixstore/bin/tvix-store", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    folder = tmp_path / "tvixstore-http.socket.d"
    folder.mkdir()
    # A group of this machine.
    (folder / "override.conf").write_text(block("ini").replace("=www-data", "=root"))
    command = ["systemd-analyze", "verify", str(tmp_path / "tvixstore-http.socket")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    # It was read at all.
    shutil.copy(folder / "override.conf", folder / "wrong.conf")
    (folder / "wrong.conf").write_text("[Socket]\nListenSteam=[::]:9000\n")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "ListenSteam" in done.stderr


def test_the_compose_file_takes_credentials() -> None:
    config = load_text(block("toml"), "x", ROOT, {"CREDENTIALS_DIRECTORY": "/run/credentials/t"})
    assert config.daemon.tls_key == Path("/run/credentials/t/tls-key.pem")


def test_the_module_takes_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "configuration.nix").write_text(block("nix"))
    given = f"(import {tmp_path}/configuration.nix).services.tvixstore"
    command = ["nix-instantiate", "--eval", "--strict", "--json"]
    command += [str(Path(__file__).with_name("evaluate.nix")), "--attr", "config"]
    command += ["--arg", "root", str(ROOT), "--arg", "given", given]
    done = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    service = json.loads(done.stdout)["systemd"]["services"]["tvixstore"]["serviceConfig"]
    assert "100GiB" in service["ExecStart"]
    # As the daemon is to read it: systemd fills it in, not Nix.
    assert "${CREDENTIALS_DIRECTORY}/tokens" in service["ExecStart"]
