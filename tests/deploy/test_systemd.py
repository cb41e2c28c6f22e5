"""The units: what systemd says of them, and that the daemon can live with what they forbid."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tvixstore.compose.values import parse_duration

ROOT = Path(__file__).parent.parent.parent
UNITS = ROOT / "examples" / "systemd"
SERVICE = (UNITS / "tvixstore.service").read_text("utf-8")
COMPOSE = tomllib.loads((UNITS / "compose.toml").read_text("utf-8"))
# Of ten; what is left is that it has a network, and that nobody but you knows which addresses.
EXPOSURE = 1.5


def said(key: str, text: str = SERVICE) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.M)


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Copies of the units whose program exists on this machine."""
    program_file = tmp_path / "tvix-store"
    program_file.write_text("#!/bin/sh\n")
    program_file.chmod(0o755)
    copies = []
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.socket")):
        text = unit.read_text("utf-8")
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(text.replace("/opt/tvixstore/bin/tvix-store", str(program_file)))
    drop_in = tmp_path / "tvixstore.service.d"
    drop_in.mkdir()
    shutil.copy(UNITS / "credentials.conf", drop_in)
    return copies


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_systemd_finds_nothing_wrong_with_the_units(units: list[Path]) -> None:
    assert len(units) == 3
    done = analyze("verify", *units)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_finds_a_key_that_does_not_exist(units: list[Path]) -> None:
    service = next(unit for unit in units if unit.suffix == ".service")
    service.write_text(service.read_text().replace("PrivateTmp=", "PrivateTemp="))
    assert "PrivateTemp" in analyze("verify", service).stderr


def test_the_service_is_as_little_exposed_as_it_can_be(units: list[Path]) -> None:
    service = next(unit for unit in units if unit.suffix == ".service")
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", service)
    assert done.returncode == 0, done.stdout


def test_the_sockets_are_named_after_the_doors_and_belong_to_the_service() -> None:
    for door in ("http", "grpc"):
        text = (UNITS / f"tvixstore-{door}.socket").read_text("utf-8")
        assert said("FileDescriptorName", text) == [door]
        assert said("Service", text) == ["tvixstore.service"]
        assert said("ListenStream", text) == [COMPOSE["daemon"][door]]
        assert f"tvixstore-{door}.socket" in said("Sockets")[0]


def test_the_state_and_the_patience_of_the_unit_are_those_of_the_compose_file() -> None:
    assert COMPOSE["daemon"]["state"] == f"/var/lib/{said('StateDirectory')[0]}"
    drain = parse_duration(COMPOSE["daemon"]["drain_timeout"])
    assert parse_duration(said("TimeoutStopSec")[0]) > drain
    assert "/etc/tvixstore/compose.toml" in said("ExecStart")[0]


def test_credentials_are_named_as_the_compose_file_names_them() -> None:
    conf = (UNITS / "credentials.conf").read_text("utf-8")
    loaded = {line.partition(":")[0] for line in said("LoadCredential", conf)}
    used = re.findall(
        r"\$\{CREDENTIALS_DIRECTORY\}/([\w.-]+)", (UNITS / "compose.toml").read_text()
    )
    assert loaded == set(used)
