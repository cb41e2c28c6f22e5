"""An upstream out of a dict: files, failures, and bodies that break off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from tvixstore.errors import Unavailable
from tvixstore.pathinfo.nix import Upstream
from tvixstore.pathinfo.nix.upstream import Body, Resume

Said: TypeAlias = "bytes | Exception"


class DictBody(Body):
    """`data` in two pieces; with `breaks`, the second one does not come."""

    def __init__(self, data: bytes, encodings: tuple[str, ...] = (), breaks: bool = False) -> None:
        self.offset = 0
        self.length = len(data)
        self.validator = None
        self.encodings = encodings
        self.url = "a file"
        self.closed = False
        middle = len(data) // 2
        self._pieces = [piece for piece in (data[middle:], data[:middle]) if piece]
        self._breaks = breaks
        self._ended = False

    async def __anext__(self) -> bytes:
        assert not self._ended, "nobody reads on behind the end"
        if not self._pieces:
            self._ended = True
            raise StopAsyncIteration
        if self._breaks and len(self._pieces) == 1:
            raise Unavailable("the connection broke")
        return self._pieces.pop()

    async def aclose(self) -> None:
        self.closed = True


class DictUpstream(Upstream):
    """Has `files`, by path; everything else is absent."""

    def __init__(
        self,
        files: Mapping[str, Said] | None = None,
        *,
        encodings: tuple[str, ...] = (),
        breaks: bool = False,
    ) -> None:
        self.name = "dict"
        self.files: dict[str, Said] = dict(files or {})
        self.encodings = encodings
        self.breaks = breaks
        self.asked: list[str] = []
        self.bodies: list[DictBody] = []

    async def narinfo(self, path_hash: bytes) -> str | None:
        raise AssertionError("nobody asks for narinfos")

    async def open_nar(self, url: str, resume: Resume | None = None) -> Body | None:
        self.asked.append(url)
        said = self.files.get(url)
        if isinstance(said, Exception):
            raise said
        if said is None:
            return None
        self.bodies.append(DictBody(said, self.encodings, self.breaks))
        return self.bodies[-1]

    async def check_store_dir(self) -> None:
        return None

    async def aclose(self) -> None:
        return None
