"""A composition over a state directory, with or without an upstream, and what is wrong with it.

house = House(tmp_path, paths)
await house.fill()
async with house.open() as composition:
    events = await verify(composition)
"""

from __future__ import annotations

import random
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.nar.trees import File, Link, Tree
from tests.support.caches import MadePath, files_of, make_path
from tvixstore.compose import load_text
from tvixstore.compose.composition import Composition
from tvixstore.kv import LmdbEngine
from tvixstore.nix import StorePath
from tvixstore.upkeep import Finding, Progress, Summary, VerifyRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from pathlib import Path

    from tvixstore.upkeep import Event, Upkeep


def tree(seed: int) -> Tree:
    """Something of everything that is stored in a way of its own."""
    noise = random.Random(seed)
    return {
        b"large": File(noise.randbytes(1_500_000)),
        b"folder": {
            b"small": File(noise.randbytes(1_000), executable=True),
            b"folder": {b"one-chunk": File(noise.randbytes(100_000)), b"link": Link(b"../small")},
            b"empty": File(b""),
        },
    }


def made_paths() -> list[MadePath]:
    """A library, an application that needs it, and one that needs nothing."""
    library = make_path("library", None, tree(1))
    app = make_path("app", None, tree(2), references=[library.narinfo.store_path])
    other = make_path("other", None, File(b"other"))
    return [library, app, other]


class House:
    """A state directory below `folder`, and an upstream that has `paths`."""

    def __init__(self, folder: Path, paths: Sequence[MadePath]) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.upstream = folder / "upstream"
        self.paths = {path.narinfo.store_path.name: path for path in paths}
        for target, data in files_of(paths).items():
            file = self.upstream / target.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

    def store_path(self, name: str) -> StorePath:
        return self.paths[name].narinfo.store_path

    @asynccontextmanager
    async def open(
        self, *, upstream: bool = True, max_size: str | None = None
    ) -> AsyncIterator[Composition]:
        text = f'[daemon]\nstate = "{self.state}"\nnegative_ttl = "0s"\n'
        if max_size is not None:
            text += f'[store]\nmax_size = "{max_size}"\n'
        if upstream:
            text += f'[[substituters]]\nurl = "file://{self.upstream}"\nunsigned = true\n'
        async with await Composition.open(load_text(text, "compose.toml", self.folder)) as opened:
            yield opened

    async def fill(self, *names: str) -> None:
        """Fetches those of the paths, or all, into the state."""
        async with self.open() as composition:
            for name in names or self.paths:
                assert await composition.path_infos.get(self.store_path(name).hash) is not None

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[LmdbEngine]:
        """The tables of the state, on which nobody else works."""
        engine = LmdbEngine(self.state / "index")
        try:
            yield engine
        finally:
            await engine.aclose()

    def chunk_files(self) -> list[Path]:
        return sorted(path for path in (self.state / "chunks").rglob("*") if path.is_file())

    async def assert_served(self, composition: Composition, names: Iterable[str] = ()) -> None:
        """Those of the paths, or all, come out as they went in."""
        for name in names or self.paths:
            path = self.paths[name]
            description = await composition.path_infos.describe(path.narinfo.store_path.hash)
            assert description is not None, name
            stream = await composition.path_infos.open_nar(description)
            assert stream is not None and await stream.read_all() == path.nar, name


@dataclass
class Verified:
    """What a check told."""

    findings: list[Finding]
    summary: Summary
    progress: list[Progress]

    def kinds(self) -> set[tuple[str, str]]:
        return {(finding.kind, finding.outcome) for finding in self.findings}


async def verify(upkeep: Upkeep | None, *paths: StorePath, repair: bool = False) -> Verified:
    assert upkeep is not None
    async with aclosing(upkeep.verify(VerifyRequest(repair, paths))) as told:
        events: list[Event] = [event async for event in told]
    summary = events.pop()
    assert isinstance(summary, Summary)
    return Verified(
        [event for event in events if isinstance(event, Finding)],
        summary,
        [event for event in events if isinstance(event, Progress)],
    )
