"""What the documents have that can be run, run as it stands there."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tvixstore
from tests.library.stores import LOCAL, put
from tests.nar.trees import File, read_in, write_out
from tvixstore.blob import MemoryBlobService
from tvixstore.compose import NodeType, lint, load_text
from tvixstore.compose.graph import KINDS
from tvixstore.compose.long import SECTIONS
from tvixstore.compose.nodes import NODE_TYPES

TEXT = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text()
LISTING, TREES, NODE_TYPE = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def run(program: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(program, "embedding.md", "exec"), names)
    return names


async def test_the_first_program_lists_a_store_path(tmp_path: Path) -> None:
    compose = tmp_path / "compose.toml"
    compose.write_text(LOCAL)
    async with tvixstore.open(compose) as store:
        path = str((await put(store)).info.store_path)
    names_in = run(LISTING)["names_in"]
    assert await names_in(str(compose), path) == [b"bin", b"escape", b"share"]
    assert await names_in(str(compose), f"/nix/store/{'0' * 32}-absent") == []


async def test_the_program_for_trees_keeps_a_folder(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text(LOCAL)
    write_out({b"f": File(b"text")}, os.fsencode(tmp_path / "folder"))
    keep = run(TREES)["keep"]
    path = await keep(*(str(tmp_path / name) for name in ("compose.toml", "folder", "copy")))
    assert path.endswith("-folder")
    assert read_in(os.fsencode(tmp_path / "copy")) == {b"f": File(b"text")}


async def test_the_node_type_can_be_made() -> None:
    names = run(NODE_TYPE)
    plain = names["PLAIN"]
    assert isinstance(plain, NodeType)
    inner = MemoryBlobService()
    make: Any = plain.blobs
    builder = SimpleNamespace(blobs={"other": inner}.__getitem__)
    service = make(builder, "root", plain.model.model_validate({"inner": "other"}))
    assert await inner.has(await service.put(b"x"))


def test_what_it_links_to_is_there() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (Path(__file__).parents[2] / "docs" / link).exists(), link


def test_the_long_form_that_is_explained_loads() -> None:
    text = (Path(__file__).parents[2] / "docs" / "composition.md").read_text()
    example, *policies = re.findall(r"```toml\n(.*?)```", text, re.S)
    config = load_text(example, "composition.md", Path("/etc"), {})
    assert [warning.section for warning in lint(config)] == []
    rows = re.findall(r"^\| `([a-z-]+)` \| (?:[bdp] ?)+\|", text, re.M)
    explained = {*rows, "combined"}
    assert explained == {name for kind in KINDS for name in NODE_TYPES[kind]}
    shown = set()
    for snippet in policies:
        for section, tables in tomllib.loads(snippet).items():
            (kind,) = [kind for kind in KINDS if SECTIONS[kind] == section]
            for table in tables.values():
                NODE_TYPES[kind][table["type"]].model_validate(table)
                shown.add(table["type"])
    # Each policy has a heading and an example of its own.
    assert shown == set(re.findall(r"^### (\w+)$", text, re.M))
