"""What `[daemon]` says of signatures: where it stands in the graph, and key files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compose.building import building
from tests.compose.test_load import KEY
from tests.compose.test_long import MEMORY
from tests.pathinfo.samples import STRANGER, TRUSTED, add, signed
from tvixstore.compose import Config, lint, load_text, lower, show
from tvixstore.compose.composition import Composition
from tvixstore.errors import ConfigError, Untrusted

SHORT = """
[[substituters]]
url = "https://one.example"
{trust}
"""
UNSIGNED = SHORT.format(trust="unsigned = true")
SIGNED = SHORT.format(trust=f'public_keys = ["{KEY}"]')
LONG = "\n".join(MEMORY.values())
DAEMON = f"""
[daemon]
sign_with = "ours.sec"
require_signature = ["{STRANGER.public_key}"]
"""


def load(folder: Path, text: str) -> Config:
    return load_text(text, "compose.toml", folder, {})


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "ours.sec"
    file.touch(0o600)
    file.write_text(TRUSTED.text)
    return file


def warnings(folder: Path, text: str) -> list[str]:
    found = lint(load(folder, text))
    return [str(warning).removesuffix(f" ({warning.rule})") for warning in found]


@pytest.mark.parametrize("form", [LONG, SIGNED], ids=["long", "short"])
def test_signing_stands_on_top_and_what_is_required_above_it(
    key_file: Path, tmp_path: Path, form: str
) -> None:
    config = load(tmp_path, DAEMON + form)
    shown = show(config.daemon, lower(config)).partition("path infos\n")[2].splitlines()
    assert shown[0] == f"  root/required (signature-required) public_keys={STRANGER.public_key}"
    assert shown[1] == f"  └─ root/signed (countersigning) keyfile={key_file}"
    assert shown[2].startswith("     └─ root (")
    assert TRUSTED.text not in "\n".join(shown)


def test_names_that_are_taken_are_left_alone(tmp_path: Path) -> None:
    mine = '[pathinfoservices."root/signed"]\ntype = "memory"\n'
    graph = lower(load(tmp_path, '[daemon]\nsign_with = "ours.sec"\n' + LONG + mine))
    assert graph.served == "root/signed-2"
    assert graph.path_infos["root/signed"].type == "memory"


async def test_what_is_put_needs_the_key_that_is_required_and_then_gets_ours(
    key_file: Path, tmp_path: Path
) -> None:
    config = load(tmp_path, DAEMON + LONG)
    async with await Composition.open(config, embedded=True) as store:
        sample = await add(store.content, "hello", b"content", signers=[TRUSTED])
        with pytest.raises(Untrusted):
            await store.path_infos.put(sample.info)
        info = signed(sample.info, STRANGER)
        both = signed(sample.info, STRANGER, TRUSTED)
        assert await store.path_infos.put(info) == both
        assert await store.path_infos.describe(sample.key) == both
        assert "SignatureRequiredPathInfoService" in repr(store)


@pytest.mark.parametrize("form", [LONG, ""], ids=["long", "short"])
@pytest.mark.parametrize("daemon", ["", DAEMON], ids=["plain", "signing"])
async def test_a_call_of_the_root_is_counted_once(
    key_file: Path, tmp_path: Path, daemon: str, form: str
) -> None:
    cache = MEMORY["pathinfoservices"].replace('"memory"', '"cache"\nnear = "memory://"')
    cached = form.replace(MEMORY["pathinfoservices"], cache + 'far = "memory://"\n')
    for text in (form, cached):
        config = load(tmp_path, (daemon or "[daemon]") + "\n" + text)
        async with await Composition.open(config) as store:
            assert await store.path_infos.describe(bytes(20)) is None
            labels = {"service": "pathinfo", "node": "root"}
            labels |= {"call": "describe", "outcome": "absent"}
            counted = store.metrics.registry.get_sample_value("tvixstore_node_calls_total", labels)
            assert counted == 1


async def test_a_keyfile_signing_node_signs_puts_wherever_it_stands(
    key_file: Path, tmp_path: Path
) -> None:
    text = LONG.replace(MEMORY["pathinfoservices"], "") + (
        '[pathinfoservices.root]\ntype = "keyfile-signing"\ninner = "memory://"\n'
        'keyfile = "ours.sec"\n'
    )
    async with building(text, tmp_path) as builder:
        service = builder.path_infos("root")
        sample = await add(builder.content(), "hello", b"content")
        assert await service.put(sample.info) == signed(sample.info, TRUSTED)
        assert "SigningPathInfoService" in repr(service)
        assert TRUSTED.text not in repr(service)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read: No such file or directory: make one with `tvix-store key generate"),
        ("", "holds no secret key"),
        ("name:c2VjcmV0", "holds no secret key"),
        (str(TRUSTED.public_key), "holds a public key, and signing takes the secret one"),
        ("x" * 5000, "holds no secret key"),
    ],
)
@pytest.mark.parametrize("where", ["[daemon]: sign_with", "[pathinfoservices.root]: keyfile"])
async def test_a_key_file_that_cannot_be_used_stops_the_start_with_what_to_do(
    tmp_path: Path, text: str | None, told: str, where: str
) -> None:
    file = tmp_path / "ours.sec"
    if text is not None:
        file.write_text(text)
    if where.startswith("[daemon]"):
        written = '[daemon]\nsign_with = "ours.sec"\n' + LONG
    else:
        written = LONG.replace(MEMORY["pathinfoservices"], "") + (
            '[pathinfoservices.root]\ntype = "keyfile-signing"\ninner = "memory://"\n'
            'keyfile = "ours.sec"\n'
        )
    with pytest.raises(ConfigError) as caught:
        await Composition.open(load(tmp_path, written), embedded=True)
    message = str(caught.value)
    assert message.startswith(f"compose.toml: {where}: {file} {told}")
    assert "c2VjcmV0" not in message


async def test_a_folder_is_no_key_file(tmp_path: Path) -> None:
    (tmp_path / "ours.sec").mkdir()
    with pytest.raises(ConfigError, match="Is a directory: name a file that this user can read"):
        await Composition.open(load(tmp_path, DAEMON + LONG), embedded=True)


def test_a_key_file_that_others_can_read_is_warned_of(key_file: Path, tmp_path: Path) -> None:
    node = '[pathinfoservices.root]\ntype = "keyfile-signing"\ninner = "memory://"\n'
    nodes = LONG.replace(MEMORY["pathinfoservices"], "") + node + 'keyfile = "ours.sec"\n'
    texts = {
        "[daemon]: sign_with": DAEMON + SIGNED,
        "[pathinfoservices.root]: keyfile": nodes,
    }
    for where, text in texts.items():
        assert warnings(tmp_path, text) == []
        for mode in (0o640, 0o604, 0o620):
            key_file.chmod(mode)
            (warning,) = warnings(tmp_path, text)
            assert warning == (
                f"{where}: {key_file} is open to others than its owner (mode {mode:04o}), and "
                f"whoever reads it can sign as you: chmod 600 {key_file}"
            )
        key_file.chmod(0o600)
    key_file.unlink()
    for where, text in texts.items():
        assert warnings(tmp_path, text) == [f"{where}: {key_file} is not a file on this machine"]


NIX = '[pathinfoservices.root]\ntype = "nix"\nbase_url = "https://one.example"\n'
GRPC = '[pathinfoservices.root]\ntype = "grpc"\nurl = "grpc+http://127.0.0.1:8000"\n'
VERIFY = f"""
[pathinfoservices.root]
type = "verify"
inner = "grpc+http://127.0.0.1:8000"
public_keys = ["{KEY}"]
"""


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (UNSIGNED, "[[substituters]] #1 (one.example): unsigned"),
        (SIGNED, None),
        (NIX, "[pathinfoservices.root]: public_keys"),
        (NIX + f'public_keys = ["{KEY}"]\n', None),
        (GRPC, "[pathinfoservices.root]: url"),
        (VERIFY, None),
        (VERIFY.replace(f'"{KEY}"', ""), "[pathinfoservices.root.inner]: url"),
    ],
)
def test_signing_what_nobody_verified_is_warned_of(
    key_file: Path, tmp_path: Path, text: str, where: str | None
) -> None:
    if "[pathinfoservices" in text:
        text = LONG.replace(MEMORY["pathinfoservices"], text)
    assert not any("our signature" in each for each in warnings(tmp_path, text))
    found = [each for each in warnings(tmp_path, DAEMON + text) if "our signature" in each]
    assert [each.partition(": nobody verifies")[0] for each in found] == ([where] if where else [])
