"""Compose files that are wrong: every mistake, its place, and what would be right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tvixstore.compose import Config, lint, load_file, load_text, lower, show
from tvixstore.compose.values import Address
from tvixstore.errors import ConfigError

KEY = "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
SIGNED = f'public_keys = ["{KEY}"]'
ENVIRON = {"SECRET": "hunter2", "STATE": "/srv/state"}


def load(text: str, environ: dict[str, str] | None = None) -> Config:
    return load_text(
        text, "compose.toml", Path("/etc/tvix"), ENVIRON if environ is None else environ
    )


def mistakes_in(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("compose.toml: ") for line in lines)
    return [line.removeprefix("compose.toml: ") for line in lines]


def substituter(*lines: str, url: str = "https://cache.example.org") -> str:
    return "\n".join(["[[substituters]]", f'url = "{url}"', *lines, ""])


# What is written, and the whole list of mistakes that it has.
CASES = dict(
    case.split("\n", 1)
    for case in Path(__file__).with_name("mistakes.txt").read_text().split("=== ")[1:]
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_all_mistakes_are_told_at_once(case: str) -> None:
    text, mistakes = case.split("---\n")
    assert mistakes_in(text) == mistakes.strip().splitlines()


def test_an_empty_file_is_the_local_store_with_all_defaults() -> None:
    config = load("")
    assert config.substituters == ()
    assert config.daemon.http == Address("tcp", "127.0.0.1", 9000)
    assert config.daemon.grpc == Address("tcp", "127.0.0.1", 8000)
    assert config.daemon.state == Path("/etc/tvix/state")
    assert (config.daemon.lookup_timeout, config.daemon.hedge) == (10.0, 0.0)
    assert (config.daemon.narinfo_ttl, config.daemon.negative_ttl) == (3600.0, 60.0)
    assert (config.daemon.verify_ahead, config.daemon.max_downloads) == (1 << 20, 32)
    assert (config.store.max_size, config.store.min_free) == (None, 1 << 30)
    assert (config.store.chunk_size, config.store.compression) == (256 << 10, "auto")


def test_the_environment_is_filled_in_and_two_dollars_are_one() -> None:
    config = load(
        '[daemon]\nstate = "${STATE}/$$x"\n'
        + substituter(SIGNED, url="https://u:${SECRET}@cache.example.org")
    )
    assert config.daemon.state == Path("/srv/state/$x")
    assert config.substituters[0].url == "https://u:hunter2@cache.example.org"


def test_a_value_out_of_the_environment_is_not_told() -> None:
    (mistake,) = mistakes_in('[daemon]\nlog_level = "${SECRET}"\n')
    assert "hunter2" not in mistake
    assert "${SECRET}" in mistake


def test_credentials_in_a_wrong_url_are_not_told() -> None:
    (mistake,) = mistakes_in(substituter(SIGNED, url="https://u:hunter2@cache.example.org/?x"))
    assert "hunter2" not in mistake


def test_a_secret_key_in_place_of_a_public_one_is_not_told() -> None:
    secret = "A" * 86 + "=="
    (mistake,) = mistakes_in(substituter(f'public_keys = ["mine:{secret}"]'))
    assert secret not in mistake
    assert '"mine:…"' in mistake


def test_keys_of_the_daemon_serve_every_substituter() -> None:
    config = load(f"[daemon]\n{SIGNED}\n" + substituter())
    assert [str(key) for key in config.daemon.public_keys] == [KEY]


def test_a_substituter_is_named_by_its_host_and_numbered_on_a_clash() -> None:
    config = load(
        substituter(SIGNED)
        + substituter(SIGNED, url="https://cache.example.org/other")
        + substituter(SIGNED, 'name = "cache.example.org-2"')
        + substituter(SIGNED, url="http://local:80")
        + substituter(SIGNED, url="file:///srv/cache")
        + substituter(SIGNED, url="http://[::1]:8080")
    )
    assert [substituter.name for substituter in config.substituters] == [
        "cache.example.org",
        "cache.example.org-3",
        "cache.example.org-2",
        "local-2",
        "file",
        "::1",
    ]


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "absent.toml", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_file(path)
        assert str(caught.value) == f"{path}: cannot be read: {reason}"


def test_a_file_that_is_not_utf8_says_where(tmp_path: Path) -> None:
    path = tmp_path / "compose.toml"
    path.write_bytes(b'[daemon]\nstate = "\xff"\n')
    with pytest.raises(ConfigError, match=r"is not UTF-8 \(at line 2\)$"):
        load_file(path)


def test_paths_are_relative_to_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "unix:http.sock"\n')
    monkeypatch.chdir(tmp_path.parent)
    config = load_file(Path(tmp_path.name, "compose.toml"))
    assert config.daemon.state == tmp_path / "state"
    assert config.daemon.http == Address("unix", path=str(tmp_path / "http.sock"))


@pytest.mark.parametrize(
    ("keys", "writes"),
    [
        ('grpc = "127.0.0.1:0"\nhttp = "[::1]:0"', True),
        ('grpc = "unix:grpc.sock"\nhttp = "off"', True),
        ('grpc = "localhost:0"\nhttp = "0.0.0.0:0"', False),
        ('grpc = "0.0.0.0:0"\nhttp = "off"', False),
        ('grpc = "[::]:0"\nhttp = "off"\nwrites = true', True),
        ('grpc = "127.0.0.1:0"\nhttp = "off"\nwrites = false', False),
        ('grpc = "127.0.0.1:0"\nhttp = "off"\nwrites = "auto"', True),
        ('grpc = "0.0.0.0:0"\nhttp = "off"\ntokens_file = "t"', True),
        ('grpc = "0.0.0.0:0"\nhttp = "off"\ntokens_file = "t"\nwrites = false', False),
    ],
)
def test_writes_are_taken_where_only_this_machine_can_ask(keys: str, writes: bool) -> None:
    assert load(f"[daemon]\n{keys}\n").daemon.takes_writes() is writes


HERE, ANYWHERE = 'grpc = "127.0.0.1:0"\nhttp = "off"', 'grpc = "[::]:0"\nhttp = "off"'


@pytest.mark.parametrize(
    ("keys", "rights"),
    [
        (HERE, {"read", "write", "admin"}),
        (f"{HERE}\nwrites = false", {"read", "admin"}),
        (ANYWHERE, {"read"}),
        (f"{ANYWHERE}\nwrites = true", {"read", "write"}),
        (f'{HERE}\ntokens_file = "t"', {"read"}),
        (f'{HERE}\ntokens_file = "t"\nwrites = true', {"read"}),
        (f'{HERE}\ntokens_file = "t"\nanonymous_read = false', set()),
    ],
)
def test_with_tokens_strangers_may_read_at_most(keys: str, rights: set[str]) -> None:
    assert load(f"[daemon]\n{keys}\n").daemon.rights_of_strangers() == rights


TOML_KEYS = st.sampled_from(
    ["daemon", "store", "substituters", "url", "name", "state", "http", "public_keys", "timeout"]
) | st.text(max_size=5)
TOML_VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.dates(),
        st.text(max_size=12),
        st.sampled_from(["https://x", "http://[", "unix:", "5s", "${SECRET}", "$", KEY, "\0"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TOML_KEYS, inner, max_size=4),
    max_leaves=12,
)


def to_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = "".join(f"\\U{ord(character):08X}" for character in value)
        return f'"{escaped}"'
    if isinstance(value, list):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, dict):
        pairs = [f"{to_toml(key)} = {to_toml(item)}" for key, item in value.items()]
        return "{" + ", ".join(pairs) + "}"
    return str(value)


def either_loads_or_says_why(text: str) -> None:
    try:
        config = load(text)
    except ConfigError as error:
        assert str(error).startswith("compose.toml: ")
        return
    assert "hunter2" not in show(config.daemon, lower(config))
    lint(config)


@given(st.dictionaries(TOML_KEYS, TOML_VALUES, max_size=4))
def test_whatever_values_there_are_it_loads_or_says_why(document: dict[str, object]) -> None:
    either_loads_or_says_why("\n".join(f"{to_toml(k)} = {to_toml(v)}" for k, v in document.items()))


@given(st.text(max_size=60))
@example("x = " + "9" * 5000)
@example("x = " + "[" * 5000)
@example("x = 2024-13-01")
def test_whatever_text_it_is_it_loads_or_says_why(text: str) -> None:
    either_loads_or_says_why(text)


EXAMPLES = [
    path
    for path in Path(__file__).parents[2].rglob("compose.toml")
    if path.parent.parent.name == "examples" or path.parent == Path(__file__).parents[2]
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_what_we_ship_loads(path: Path) -> None:
    config = load_file(path, {**os.environ, "CUSTOMER_CACHE_PASSWORD": "x"})
    assert config.substituters or config.graph is not None
