"""One Directory: names to nodes, in canonical order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tvixstore.castore.digest import Digest
from tvixstore.castore.nodes import DirectoryNode, Node, check_name
from tvixstore.errors import InvalidData

Entry = tuple[bytes, Node]


@dataclass(frozen=True)
class Directory:
    """Entries strictly ascending by the name's bytes; `of` sorts them first."""

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        before = b""
        for name, _ in self.entries:
            check_name(name)
            # A name is never empty, so the first one is always above `before`.
            if name <= before:
                raise InvalidData(f"entry {name!r} does not come after {before!r}")
            before = name

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Directory:
        return cls(tuple(sorted(entries, key=lambda entry: entry[0])))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def get(self, name: bytes) -> Node | None:
        return next((node for other, node in self.entries if other == name), None)

    @property
    def children(self) -> list[DirectoryNode]:
        """The nodes of its subdirectories, in order, repeats included."""
        return [node for _, node in self.entries if isinstance(node, DirectoryNode)]

    @cached_property
    def size(self) -> int:
        """The documented size: its entries, plus what its subdirectories say of themselves."""
        return len(self.entries) + sum(child.size for child in self.children)

    @cached_property
    def wire(self) -> bytes:
        """The canonical wire form."""
        from tvixstore.castore.codec import encode_directory

        return encode_directory(self)

    @cached_property
    def digest(self) -> Digest:
        """BLAKE3 of the canonical wire form: the Directory's name."""
        return Digest.of(self.wire)
