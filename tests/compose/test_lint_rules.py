"""Each rule of lint: a file in which it finds something, and one beside it in which none does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compose.test_load import SIGNED, load, substituter
from tests.compose.test_long import long
from tvixstore.compose import load_file
from tvixstore.compose.lint import RULES, lint

ROOT = Path(__file__).parents[2]
SENSIBLE = sorted(
    [
        ROOT / "compose.toml",
        ROOT / "tvixstore" / "compose" / "default.toml",
        *ROOT.glob("examples/*/compose.toml"),
    ]
)

A = "https://a.example.org"
B = "https://b.example.org"
ABSENT, HERE = "/etc/tvix/absent", __file__
NEAR_AND_FAR = 'type = "cache"\nnear = "near"\nfar = "far"'


def table(service: str, name: str, keys: str) -> str:
    return f"[{service}services.{name}]\n{keys}\n"


def blobs(root: str, **others: str) -> str:
    """A composition with those nodes of blobs; `inner` is a daemon elsewhere unless it is given."""
    nodes = {"root": root, **others}
    if '"inner"' in str(nodes) and "inner" not in nodes:
        nodes["inner"] = GRPC
    return long(blobservices="".join(table("blob", name, keys) for name, keys in nodes.items()))


def paths(root: str, daemon: str = "", **others: str) -> str:
    """The same of path infos, behind what `[daemon]` has."""
    nodes = "".join(
        table("pathinfo", name, keys) for name, keys in {"root": root, **others}.items()
    )
    return f"[daemon]\n{daemon}\n" + long(pathinfoservices=nodes)


def daemon(*lines: str) -> str:
    return "\n".join(["[daemon]", *lines, ""])


GRPC = 'type = "grpc"\nurl = "grpc+http://office.example:8000"'
LOCAL = 'type = "local"\npath = "state"'
LOCAL_GRPC = 'type = "grpc"\nurl = "grpc+http://[::1]:8001"'
MEMORY = 'type = "memory"'
RETRY = 'type = "retry"\ninner = "inner"\nattempts = 3'
TIMEOUT = 'type = "timeout"\ninner = "inner"\nattempt = "5s"'
NIX = f'type = "nix"\nbase_url = "{A}"\n{SIGNED}'


@dataclass(frozen=True)
class Row:
    """`text` is what `rule` finds something in; with `old` replaced by `new`, nothing is found."""

    rule: str
    text: str
    old: str
    new: str

    def __str__(self) -> str:
        return self.rule


ROWS = [
    Row("open-writes", daemon('http = "[::]:9000"', "writes = true"), "true", '"auto"'),
    Row(
        "refused-writes",
        daemon("writes = true") + blobs('type = "readonly"\ninner = "disk"', disk=LOCAL),
        "writes = true",
        'writes = "auto"',
    ),
    Row(
        "plain-tokens",
        daemon('http = "[::]:9000"', f'tokens_file = "{HERE}"'),
        'http = "[::]:9000"',
        "",
    ),
    Row(
        "needless-tokens",
        daemon(f'tokens_file = "{HERE}"', "writes = false"),
        "writes = false",
        "writes = true",
    ),
    Row("missing-file", substituter(SIGNED, f'ca_file = "{ABSENT}"'), ABSENT, HERE),
    Row("missing-file", daemon(f'tokens_file = "{ABSENT}"'), ABSENT, HERE),
    Row("missing-file", blobs(f'{LOCAL_GRPC}\ntoken_file = "{ABSENT}"'), "token_file", "#"),
    Row(
        "needless-certificate",
        daemon(
            *(f'{key} = "{HERE}"' for key in ("tls_cert", "tls_key", "client_ca")), 'grpc = "off"'
        ),
        'grpc = "off"',
        "",
    ),
    Row(
        "needless-certificate",
        blobs(f'{GRPC}\nca_file = "{HERE}"'),
        "grpc+http:",
        "grpc+https:",
    ),
    Row(
        "needless-hedge",
        daemon('hedge = "1s"') + substituter(SIGNED) + substituter(SIGNED, "priority = 50", url=B),
        "priority = 50",
        "",
    ),
    Row("needless-hedge", daemon('hedge = "p95"') + long(), "hedge", "#"),
    Row("own-address", substituter(SIGNED, url="http://127.0.0.1:9000"), "9000", "9001"),
    Row(
        "own-address",
        daemon('http = "[::]:9000"') + substituter(SIGNED, url="http://localhost:9000"),
        "localhost",
        "office",
    ),
    Row("own-address", blobs(GRPC.replace("office.example", "localhost")), ":8000", ":8001"),
    Row(
        "own-address",
        daemon('grpc = "unix:/run/ours"') + blobs('type = "grpc"\nurl = "grpc+unix:///run/ours"'),
        "///run/ours",
        "///run/theirs",
    ),
    Row(
        "own-address",
        paths('type = "verify"\ninner = "nix"', nix=NIX.replace(A, "http://127.0.0.1:9000/")),
        ":9000/",
        ":9001/",
    ),
    Row(
        "offline-with-nothing",
        paths(NEAR_AND_FAR, "offline = true", near=MEMORY, far=NIX),
        MEMORY + "\n[pathinfoservices.far]",
        LOCAL + "\n[pathinfoservices.far]",
    ),
    Row("none-enabled", substituter(SIGNED, "enabled = false"), "false", "true"),
    Row(
        "only-optional",
        substituter(SIGNED, "optional = true") + substituter(SIGNED, "optional = true", url=B),
        f'"{B}"\n{SIGNED}\noptional = true',
        f'"{B}"\n{SIGNED}',
    ),
    Row("unsigned", substituter("unsigned = true"), "unsigned = true", SIGNED),
    Row(
        "nothing-matches",
        substituter(SIGNED, 'only = ["firefox-*"]', 'except = ["firefox*", "x"]'),
        "firefox*",
        "firefox-1*",
    ),
    Row("nothing-matches", substituter(SIGNED, 'except = ["*"]'), '"*"', '"?"'),
    Row("same-cache", substituter(SIGNED, url=A) + substituter(SIGNED, url=A + "/"), A + "/", B),
    Row(
        "same-cache",
        substituter(SIGNED, url=A) + substituter(SIGNED, "priority = 50", url=A),
        "priority = 50",
        'priority = 50\nonly = ["x-*"]',
    ),
    Row(
        "plain-credentials",
        substituter(SIGNED, f'token_file = "{HERE}"', url="http://a.example.org"),
        "http:",
        "https:",
    ),
    Row("plain-credentials", blobs(f'{GRPC}\ntoken_file = "{HERE}"'), "office.example", "[::1]"),
    Row(
        "plain-credentials",
        paths(NIX.replace("https://", "http://user:password@")),
        "http:",
        "https:",
    ),
    Row(
        "readable-key",
        daemon('sign_with = "absent.sec"'),
        "sign_with",
        "#",
    ),
    Row("believed", paths(NIX.replace(SIGNED, "")), f'"{A}"', f'"{A}"\n{SIGNED}'),
    Row("believed", paths('type = "readonly"\ninner = "inner"', inner=GRPC), "readonly", "verify"),
    Row("starved-retry", substituter(SIGNED, 'timeout = "10s"'), "10s", "9s"),
    Row(
        "starved-retry",
        paths(
            TIMEOUT.replace("inner = ", "inner = #").replace('#"inner"', '"again"'),
            again=RETRY,
            inner=NIX,
        ),
        '"5s"',
        '"15s"',
    ),
    Row(
        "starved-retry",
        blobs(f'{TIMEOUT}\noverall = "4s"', inner='type = "retry"\ninner = "disk"', disk=MEMORY),
        '"4s"',
        '"40s"',
    ),
    Row("needless-overall", blobs(f'{TIMEOUT}\noverall = "9s"'), "overall", "#"),
    Row(
        "needless-timeout",
        blobs(TIMEOUT, inner='type = "timeout"\ninner = "disk"\nattempt = "6s"', disk=MEMORY),
        '"6s"',
        '"4s"',
    ),
    Row(
        "retry-in-retry",
        blobs(
            RETRY, inner='type = "breaker"\ninner = "x"', x='type = "retry"\ninner = "y"', y=GRPC
        ),
        'type = "retry"\ninner = "y"',
        'type = "breaker"\ninner = "y"',
    ),
    Row("needless-retry", blobs(RETRY.replace("3", "1")), "attempts = 1", "attempts = 2"),
    Row("needless-retry", blobs(f'{RETRY}\nmin_delay = "3s"'), '"3s"', '"2s"'),
    Row(
        "late-hedge",
        blobs(
            'type = "race"\nmembers = ["a", "b"]\nhedge = "5s"',
            a=TIMEOUT.replace("5s", "1s"),
            b=TIMEOUT.replace("inner = ", "inner = #").replace('#"inner"', '"memory://"'),
        ),
        'hedge = "5s"',
        'hedge = "4s"',
    ),
    Row(
        "late-hedge",
        daemon('hedge = "15s"', 'lookup_timeout = "1m"')
        + substituter(SIGNED)
        + substituter(SIGNED, url=B),
        "15s",
        "14s",
    ),
    Row("long-absence", daemon('negative_ttl = "25h"'), "25h", "24h"),
    Row("long-absence", blobs('type = "negative"\ninner = "inner"\nttl = "48h"'), "48h", "1h"),
    Row("unreachable", blobs(MEMORY, x=MEMORY), table("blob", "x", MEMORY), ""),
    *(
        Row(
            "single-member",
            blobs(f'type = "{kind}"\nmembers = ["inner"]'),
            '["inner"]',
            '["inner", "other"]\n[blobservices.other]\ntype = "memory"',
        )
        for kind in ("race", "fallback", "mirror", "shard")
    ),
    Row(
        "same-store",
        blobs('type = "mirror"\nmembers = ["a", "b"]', a=LOCAL, b=LOCAL),
        'b]\ntype = "local"\npath = "state"',
        'b]\ntype = "local"\npath = "other"',
    ),
    Row(
        "same-store",
        blobs('type = "race"\nmembers = ["a", "inner"]', a='type = "verify"\ninner = "inner"'),
        'verify"\ninner = "inner"',
        'verify"\ninner = "memory://"',
    ),
    Row(
        "same-store",
        blobs(NEAR_AND_FAR, near=LOCAL, far=LOCAL),
        'far]\ntype = "local"\npath = "state"',
        'far]\ntype = "local"\npath = "other"',
    ),
    Row(
        "swapped-cache",
        blobs(NEAR_AND_FAR, near=GRPC, far=LOCAL),
        'near = "near"\nfar = "far"',
        'near = "far"\nfar = "near"',
    ),
    Row(
        "unkept",
        blobs(NEAR_AND_FAR, near='type = "readonly"\ninner = "disk"', disk=LOCAL, far=GRPC),
        'cache"\nnear = "near"\nfar = "far"',
        'fallback"\nmembers = ["near", "far"]',
    ),
    Row(
        "forgotten-writes",
        paths(NEAR_AND_FAR, near='type = "lru"\ncapacity = 9', far=NIX),
        'type = "lru"\ncapacity = 9',
        LOCAL,
    ),
    Row(
        "forgotten-writes",
        blobs(NEAR_AND_FAR, near=f'{LOCAL}\nmax_size = "1GiB"', far=LOCAL.replace("state", "hdd")),
        'max_size = "1GiB"',
        "",
    ),
    Row("forgotten-writes", blobs(NEAR_AND_FAR, near=MEMORY, far=LOCAL), LOCAL, GRPC),
    Row(
        "closed-member",
        blobs(
            'type = "mirror"\nmembers = ["inner", "a"]\nquorum = 1',
            a='type = "readonly"\ninner = "disk"',
            disk=LOCAL,
        ),
        "readonly",
        "verify",
    ),
    Row(
        "unrepaired-mirror",
        blobs(
            'type = "mirror"\nmembers = ["inner", "disk"]\nquorum = 1\nrepair = false', disk=LOCAL
        ),
        "quorum = 1",
        "quorum = 2",
    ),
    Row(
        "needless-budget",
        blobs('type = "race"\nmembers = ["inner", "memory://"]\nbudget = 0.2'),
        "budget = 0.2",
        'budget = 0.2\nhedge = "p95"',
    ),
    Row("needless-negative", blobs('type = "negative"\ninner = "inner"\nttl = "0s"'), "0s", "1s"),
    Row("needless-negative", blobs('type = "negative"\ninner = "disk"', disk=LOCAL), LOCAL, GRPC),
    Row(
        "limit-above-others",
        blobs('type = "limit"\nconcurrency = 1\ninner = "a"', a='type = "verify"\ninner = "inner"'),
        """type = "limit"\nconcurrency = 1\ninner = "a"
[blobservices.a]
type = "verify"\ninner = "inner"\n""",
        """type = "verify"\ninner = "a"
[blobservices.a]
type = "limit"\nconcurrency = 1\ninner = "inner"\n""",
    ),
    Row("chaos", blobs('type = "chaos"\ninner = "inner"'), "chaos", "verify"),
]
# These find nothing in a file in which no other does: an upstream without signatures is one, too.
TOGETHER = [
    Row(
        "plain-unsigned",
        substituter("unsigned = true", url="http://a.example.org"),
        "http:",
        "https:",
    ),
    Row(
        "signed-unverified",
        daemon('sign_with = "absent.sec"') + substituter("unsigned = true"),
        "sign_with",
        "#",
    ),
]


def found(text: str) -> set[str]:
    return {finding.rule for finding in lint(load(text))}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_rule_finds_what_it_is_for_and_nothing_beside_it(row: Row) -> None:
    assert found(row.text) == {row.rule}
    assert row.old in row.text
    assert found(row.text.replace(row.old, row.new)) == set()


@pytest.mark.parametrize("row", TOGETHER, ids=str)
def test_a_rule_adds_to_what_another_finds(row: Row) -> None:
    before = found(row.text)
    assert row.rule in before and row.old in row.text
    assert row.rule not in found(row.text.replace(row.old, row.new))


def test_every_rule_has_a_row() -> None:
    assert {row.rule for row in [*ROWS, *TOGETHER]} == set(RULES)


@pytest.mark.parametrize("file", SENSIBLE, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_is_found_in_the_files_that_we_hand_out(file: Path) -> None:
    environ = {"HOME": "/home/somebody", "CUSTOMER_CACHE_PASSWORD": "secret"}
    findings = lint(load_file(file, environ))
    # The secrets that an example names are the reader's own.
    assert {finding.rule for finding in findings} <= {"missing-file"}
    assert all("/secrets/" in finding.text for finding in findings)


def test_a_finding_tells_its_rule() -> None:
    (finding,) = lint(load(substituter("unsigned = true")))
    assert str(finding).endswith(" (unsigned)")


def names(text: str) -> Iterator[str]:
    """The rules that the table of the documentation has."""
    block = text.split("| rule | finds | what to do |")[1].split("\n\n")[0]
    for line in block.splitlines()[2:]:
        yield line.split("`")[1]


def test_every_rule_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert sorted(names(text)) == sorted(RULES)
