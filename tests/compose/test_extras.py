"""Whom a composition asks for realisations, logs and the like: in which order, and how guarded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.compose.building import building
from tvixstore.compose.beside import Beside
from tvixstore.compose.graph import ROOT
from tvixstore.compose.make_extras import make_extras
from tvixstore.kv import MemoryKeyValue

if TYPE_CHECKING:
    from pathlib import Path

    from tvixstore.extras import ExtrasSource

KEY = "upstream-1:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
SHORT = f"""
[[substituters]]
url = "http://slow.invalid"
name = "slow"
priority = 50
public_keys = ["{KEY}"]
optional = true

[[substituters]]
url = "http://one.invalid"
name = "one"
public_keys = ["{KEY}"]
retries = 4

[[substituters]]
url = "http://two.invalid"
name = "two"
unsigned = true

[[substituters]]
url = "grpc+http://daemon.invalid:8000"
name = "daemon"
priority = 1
unsigned = true
"""
LONG = """
[blobservices.root]
type = "memory"

[directoryservices.root]
type = "memory"

[pathinfoservices.root]
type = "cache"
near = "near"
far = "far"

[pathinfoservices.near]
type = "memory"

[pathinfoservices.far]
type = "fallback"
members = ["racing", "last", "again"]

[pathinfoservices.racing]
type = "race"
members = ["one", "layered"]

[pathinfoservices.one]
type = "nix"
base_url = "http://one.invalid"

[pathinfoservices.layered]
type = "cache"
near = "memory"
far = "two"

[pathinfoservices.memory]
type = "lru"
capacity = 10

[pathinfoservices.two]
type = "nix"
base_url = "http://two.invalid"

[pathinfoservices.last]
type = "readonly"
inner = "three"

[pathinfoservices.three]
type = "nix"
base_url = "http://three.invalid"

[pathinfoservices.again]
type = "readonly"
inner = "one"

[pathinfoservices.unreached]
type = "nix"
base_url = "http://unreached.invalid"
"""


async def classes_of(text: str, folder: Path) -> list[list[ExtrasSource]]:
    async with building(text, folder) as builder:
        builder.path_infos(ROOT)
        extras = make_extras(builder, Beside(MemoryKeyValue(), None))
        return [list(members) for members in extras.far.classes]


async def test_substituters_keep_their_order_and_their_guards(tmp_path: Path) -> None:
    (one, two), (slow,) = await classes_of(SHORT, tmp_path)
    assert [source.name for source in (one, two, slow)] == ["one", "two", "slow"]
    assert [source.optional for source in (one, two, slow)] == [False, False, True]
    assert [source.retry.attempts for source in (one, two)] == [5, 3]
    assert (one.keys is not None, two.keys) == (True, None)
    assert all(source.breaker is not None for source in (one, two, slow))
    assert slow.breaker is not None and slow.breaker.failures == 1


async def test_the_breaker_is_that_of_its_narinfos(tmp_path: Path) -> None:
    async with building(SHORT, tmp_path) as builder:
        builder.path_infos(ROOT)
        extras = make_extras(builder, Beside(MemoryKeyValue(), None))
        guards = [source.breaker for members in extras.far.classes for source in members]
        assert guards == [builder.breakers[f"{name}/breaker"] for name in ("one", "two", "slow")]


async def test_the_long_form_is_asked_from_its_root_each_cache_once(tmp_path: Path) -> None:
    classes = await classes_of(LONG, tmp_path)
    assert [[source.name for source in members] for members in classes] == [
        ["one", "two"],
        ["three"],
    ]
