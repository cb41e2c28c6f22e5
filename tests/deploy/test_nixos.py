"""The NixOS module, the package and the shell: as far as they can be evaluated without nixpkgs."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.nix_client import environment
from tvixstore.compose import load_document

ROOT = Path(__file__).parent.parent.parent
NIX_FILES = [ROOT / "shell.nix", *sorted(ROOT.glob("examples/nixos/*.nix"))]
STUB = Path(__file__).with_name("evaluate.nix")
SERVICE = ROOT / "examples" / "systemd" / "tvixstore.service"
# What says where the program is, and what NixOS has other words for. There, a compose file that is
# changed is another file, and so another unit: nothing is reloaded.
NOT_COMPARED = {"ExecStart", "ExecReload", "EnvironmentFile", "LoadCredential"}

Evaluate: TypeAlias = "Callable[..., Any]"


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    def run(attribute: str, given: str = "{ }", absent: str = "[ ]") -> Any:
        command = ["nix-instantiate", "--eval", "--strict", "--json", str(STUB)]
        command += ["--arg", "root", str(ROOT), "--arg", "given", given, "--arg", "absent", absent]
        done = subprocess.run(
            [*command, "--attr", attribute],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise ValueError(done.stderr)
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("file", NIX_FILES, ids=lambda file: file.name)
def test_nix_parses_it(file: Path, tmp_path: Path) -> None:
    command = ["nix-instantiate", "--parse", str(file)]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def test_a_module_that_is_not_enabled_changes_nothing(evaluate: Evaluate) -> None:
    assert evaluate("config") is None


def test_every_option_says_what_it_is_for(evaluate: Evaluate) -> None:
    options = evaluate("options")
    assert options.keys() >= {"enable", "package", "settings", "credentials", "openFirewall"}
    assert all(options.values())


def settings_of(config: Any) -> dict[str, Any]:
    """What the module writes as a compose file."""
    start = config["systemd"]["services"]["tvixstore"]["serviceConfig"]["ExecStart"]
    found = re.search(r"compose\.toml: (\{.*?\})(?:\n|$)", start)
    assert found is not None, start
    document: dict[str, Any] = json.loads(found[1])
    return document


def test_the_service_is_what_the_systemd_unit_is(evaluate: Evaluate) -> None:
    service = evaluate("config", "{ enable = true; }")["systemd"]["services"]["tvixstore"]
    lines = re.findall(r"^(\w+)=(.*)$", SERVICE.read_text("utf-8").split("[Service]")[1], re.M)
    unit: dict[str, list[str]] = {}
    for key, value in lines:
        unit.setdefault(key, []).append(value)
    words = {True: "yes", False: "no"}
    made = {
        key: value
        if isinstance(value, list)
        else [words.get(value, str(value))]
        if isinstance(value, bool)
        else [str(value)]
        for key, value in service["serviceConfig"].items()
    }
    # Lists become a line each; this one is the same as a line with both.
    made["Sockets"] = [" ".join(sorted(made["Sockets"], reverse=True))]
    del unit["WantedBy"], unit["Also"]
    assert {key: value for key, value in made.items() if key not in NOT_COMPARED} == {
        key: value for key, value in unit.items() if key not in NOT_COMPARED
    }


def test_the_command_comes_with_the_service(evaluate: Evaluate) -> None:
    # With it, NixOS links the man pages and what completes its words.
    config = evaluate("config", '{ enable = true; package = "/nix/store/tvixstore"; }')
    assert config["environment"]["systemPackages"] == ["/nix/store/tvixstore"]


def test_the_settings_become_a_compose_file_that_loads(evaluate: Evaluate, tmp_path: Path) -> None:
    given = """{
      enable = true;
      credentials.tokens = "/etc/secrets/tokens";
      settings = {
        daemon.tokens_file = "\\${CREDENTIALS_DIRECTORY}/tokens";
        store.max_size = "100GiB";
        substituters = [ { url = "https://cache.example"; unsigned = true; } ];
      };
    }"""
    config = evaluate("config", given)
    loaded = load_document(
        settings_of(config), "compose.toml", tmp_path, {"CREDENTIALS_DIRECTORY": "/run/c"}
    )
    assert loaded.daemon.tokens_file == Path("/run/c/tokens")
    assert loaded.daemon.state == Path("/var/lib/tvixstore")
    assert loaded.store.max_size == 100 << 30
    service = config["systemd"]["services"]["tvixstore"]["serviceConfig"]
    assert service["LoadCredential"] == ["tokens:/etc/secrets/tokens"]
    # It is checked when the system is built.
    assert "tvix-store compose check" in service["ExecStart"]


def test_variables_of_a_file_are_not_there_when_the_system_is_built(evaluate: Evaluate) -> None:
    config = evaluate("config", '{ enable = true; environmentFile = "/etc/tvixstore.env"; }')
    service = config["systemd"]["services"]["tvixstore"]["serviceConfig"]
    assert service["EnvironmentFile"] == ["/etc/tvixstore.env"]
    assert "compose check" not in service["ExecStart"]


def test_each_door_that_is_open_has_a_socket(evaluate: Evaluate) -> None:
    given = """{ enable = true; openFirewall = true; settings.daemon = {
      http = "[::]:9000"; grpc = "unix:/run/tvixstore/grpc";
    }; }"""
    config = evaluate("config", given)
    sockets = config["systemd"]["sockets"]
    listening = {name: each["socketConfig"]["ListenStream"] for name, each in sockets.items()}
    assert listening == {
        "tvixstore-http": "[::]:9000",
        "tvixstore-grpc": "/run/tvixstore/grpc",
    }
    assert config["networking"]["firewall"]["allowedTCPPorts"] == [9000]


def test_a_door_that_is_off_has_none(evaluate: Evaluate) -> None:
    config = evaluate("config", '{ enable = true; settings.daemon.grpc = "off"; }')
    assert config["systemd"]["sockets"].keys() == {"tvixstore-http"}
    assert config["networking"]["firewall"]["allowedTCPPorts"] is None
    (socket,) = config["systemd"]["services"]["tvixstore"]["serviceConfig"]["Sockets"]
    assert socket == "tvixstore-http.socket"


@pytest.mark.parametrize(("state", "holds"), [("/var/lib/tvixstore/a", True), ("/srv/a", False)])
def test_the_state_is_where_the_service_can_write(
    evaluate: Evaluate, state: str, holds: bool
) -> None:
    config = evaluate("config", f'{{ enable = true; settings.daemon.state = "{state}"; }}')
    assert [each["assertion"] for each in config["assertions"]] == [holds]


def test_the_package_has_the_dependencies_of_the_project(evaluate: Evaluate) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    package = evaluate("package")
    names = [re.split(r"[^\w-]", each, maxsplit=1)[0] for each in project["dependencies"]]
    assert package["dependencies"] == [f"python3-{name}" for name in names]
    assert (package["pname"], package["version"]) == (project["name"], project["version"])


def test_a_dependency_that_nixpkgs_lacks_is_named(evaluate: Evaluate) -> None:
    with pytest.raises(ValueError, match=r"no python3Packages\.obstore: pass it to package\.nix"):
        evaluate("package", absent='[ "obstore" ]')


def test_the_shell_has_what_make_needs(evaluate: Evaluate) -> None:
    assert {"gnumake", "nix", "systemd"} <= set(evaluate("shell")["packages"])
