"""Compositions that nobody would write, against a dict: whatever is stacked on whatever, a root has
what its leaves have.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.blob.conformance import noise, part
from tests.compose.building import building
from tests.compose.test_long import MEMORY
from tests.pathinfo.samples import TRUSTED, add
from tvixstore.blob import BlobService
from tvixstore.castore import EMPTY_DIGEST, Digest, Directory, DirectoryNode, FileNode
from tvixstore.compose.build import Builder
from tvixstore.compose.graph import KINDS
from tvixstore.compose.nodes import Kind
from tvixstore.errors import ReadOnly
from tvixstore.pathinfo import PathInfo

SECTIONS: dict[Kind, str] = {
    "blobs": "blobservices",
    "directories": "directoryservices",
    "path_infos": "pathinfoservices",
}
LEAVES: dict[Kind, list[str]] = {
    "blobs": [
        'type = "memory"',
        'type = "local"\npath = "./{name}"',
        'type = "objectstore"\nobject_store_url = "memory:///"\navg_chunk_size = 4096',
    ],
    "directories": ['type = "memory"', 'type = "local"\npath = "./{name}"'],
    "path_infos": [
        'type = "memory"',
        'type = "lru"\ncapacity = 1000',
        'type = "local"\npath = "./{name}"',
    ],
}
ONE_INNER = {"blobs": ["verify", "readonly"], "directories": ["verify", "readonly"]}
POLICIES = ["verify", "readonly", "timeout", "retry", "breaker", "negative"]

# Sizes on either side of what is one chunk for some leaves, or for all of them.
BLOBS = [noise(size, seed=9) for size in (0, 1, 5000, 70_000, 300_000)]


@dataclass
class Stack:
    """One kind's tables while they are made up; which node takes what is put."""

    kind: Kind
    tables: list[str] = field(default_factory=list)
    leaves: list[str] = field(default_factory=list)

    def table(self, name: str, body: str) -> None:
        self.tables.append(f"[{SECTIONS[self.kind]}.{name}]\n{body.format(name=name)}\n")

    def text(self) -> str:
        return "".join(self.tables)


@dataclass(frozen=True)
class Case:
    """A composition; the leaves of its stack, and which of them writes come to, if any does."""

    text: str
    leaves: list[str]
    writable: str | None


@st.composite
def stacks(draw: st.DrawFn, kind: Kind) -> tuple[Stack, str | None]:
    """A composition of that kind, and the leaf that writes come to, if any does."""
    stack = Stack(kind)

    def node(name: str, depth: int) -> str | None:
        policies = ONE_INNER.get(kind, POLICIES)
        kinds = ["leaf"] if depth == 0 else ["leaf", "cache", "race", "fallback", *policies]
        choice = draw(st.sampled_from(kinds))
        if choice == "leaf":
            stack.table(name, draw(st.sampled_from(LEAVES[kind])))
            stack.leaves.append(name)
            return name
        if choice == "cache":
            stack.table(name, f'type = "cache"\nnear = "{name}n"\nfar = "{name}f"')
            near = node(f"{name}n", depth - 1)
            node(f"{name}f", depth - 1)
            return near
        if choice in policies:
            stack.table(name, f'type = "{choice}"\ninner = "{name}i"')
            inner = node(f"{name}i", depth - 1)
            return None if choice == "readonly" else inner
        members = [f"{name}{number}" for number in range(draw(st.integers(1, 3)))]
        stack.table(name, f'type = "{choice}"\nmembers = {members!r}')
        takes = [node(member, depth - 1) for member in members]
        return next((leaf for leaf in takes if leaf is not None), None)

    writable = node("root", draw(st.integers(0, 3)))
    return stack, writable


def drawn(kind: Kind) -> st.SearchStrategy[Case]:
    """Compositions with a stack of that kind, over memory where they need other kinds."""

    def case(made: tuple[Stack, str | None]) -> Case:
        stack, writable = made
        others = "".join(MEMORY[SECTIONS[other]] for other in KINDS if other != kind)
        return Case(stack.text() + others, stack.leaves, writable)

    return stacks(kind).map(case)


def over(case: Case, check: Callable[[Builder], Coroutine[None, None, None]]) -> None:
    """Runs `check` on what the composition is built to."""

    async def run(folder: Path) -> None:
        async with building(case.text, folder) as builder:
            await check(builder)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


@settings(max_examples=25)
@given(drawn("blobs"), st.data())
def test_a_root_has_the_blobs_of_its_leaves(case: Case, data: st.DataObject) -> None:
    async def check(builder: Builder) -> None:
        model = {EMPTY_DIGEST: b""}
        for blob in BLOBS:
            if data.draw(st.booleans()):
                leaf = data.draw(st.sampled_from(case.leaves))
                model[await builder.blobs(leaf).put(blob)] = blob
        root = builder.blobs("root")
        new = noise(20_000, seed=10)
        try:
            model[await root.put(new)] = new
        except ReadOnly:
            assert case.writable is None
        else:
            assert case.writable is not None
            assert await builder.blobs(case.writable).read(Digest.of(new)) == new
        # What was asked for once may be kept nearer by the second time.
        for _ in range(2):
            for blob in [*BLOBS, new]:
                await look_at(root, blob, there=Digest.of(blob) in model)

    over(case, check)


async def look_at(root: BlobService, blob: bytes, *, there: bool) -> None:
    digest = Digest.of(blob)
    assert await root.has(digest) is there
    assert await part(root, digest) == (blob if there else None)
    assert await part(root, digest, 100, 4000) == (blob[100:4100] if there else None)
    chunks = await root.chunks(digest)
    assert (chunks is not None) is there
    if chunks:
        assert sum(chunk.size for chunk in chunks) == len(blob)
        assert await root.read(chunks[-1].digest) == blob[-chunks[-1].size :]


@settings(max_examples=25)
@given(drawn("directories"), st.data())
def test_a_root_has_the_directories_of_its_leaves(case: Case, data: st.DataObject) -> None:
    leaf = Directory.of([(b"x", FileNode(EMPTY_DIGEST, 0))])
    shared = Directory.of([(b"leaf", DirectoryNode(leaf.digest, leaf.size))])
    roots = [
        Directory.of([(name, DirectoryNode(shared.digest, shared.size)) for name in names])
        for names in ([b"a"], [b"a", b"b"], [b"c"])
    ]
    new = Directory.of([(b"new", FileNode(EMPTY_DIGEST, 0))])

    async def check(builder: Builder) -> None:
        model: dict[Digest, list[Directory]] = {}
        for top in roots:
            if data.draw(st.booleans()):
                below = builder.directories(data.draw(st.sampled_from(case.leaves)))
                await below.put_many([leaf, shared, top])
                model |= {top.digest: [top, shared, leaf], shared.digest: [shared, leaf]}
        root = builder.directories("root")
        try:
            await root.put(new)
        except ReadOnly:
            assert case.writable is None
        else:
            assert case.writable is not None
            assert await builder.directories(case.writable).get(new.digest) == new
            model[new.digest] = [new]
        for _ in range(2):
            for top in [*roots, shared, new]:
                closure = model.get(top.digest, [])
                assert await root.get(top.digest) == (closure[0] if closure else None)
                assert [each async for each in root.get_closure(top.digest)] == closure

    over(case, check)


@settings(max_examples=25)
@given(drawn("path_infos"), st.data())
def test_a_root_has_the_path_infos_of_its_leaves(case: Case, data: st.DataObject) -> None:
    async def check(builder: Builder) -> None:
        samples = [
            await add(builder.content(), name, {b"x": name.encode()}, signers=[TRUSTED])
            for name in ("a", "b", "c", "new")
        ]
        model: dict[bytes, PathInfo] = {}
        for sample in samples[:-1]:
            if data.draw(st.booleans()):
                leaf = data.draw(st.sampled_from(case.leaves))
                model[sample.key] = await builder.path_infos(leaf).put(sample.info)
        root = builder.path_infos("root")
        new = samples[-1]
        assert await root.get(new.key) is None
        try:
            model[new.key] = await root.put(new.info)
        except ReadOnly:
            assert case.writable is None
        else:
            assert case.writable is not None
            assert await builder.path_infos(case.writable).get(new.key) == new.info
        for _ in range(2):
            for sample in samples:
                description = await root.describe(sample.key)
                assert (description is not None) is (sample.key in model)
                assert description is None or description.same_nar(sample.info)
                assert await root.describe(sample.key, bytes(32)) is None
                assert await root.get(sample.key) == model.get(sample.key)

    over(case, check)
