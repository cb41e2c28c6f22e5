"""One Directory: names to nodes, in canonical order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import pairwise
from operator import itemgetter, lt

from tvixstore.castore.digest import Digest
from tvixstore.castore.nodes import MAX_SIZE, DirectoryNode, Node, check_names
from tvixstore.castore.wire import Entry, encode_entries
from tvixstore.errors import InvalidData


class SizeRule(Enum):
    """How the size of a Directory is counted; the value is its name in configuration.

    Documented is the number of all descendants. The Rust code of tvix and snix counts, writes and
    checks exactly twice that, and refuses anything else.
    """

    DOCUMENTED = "documented"
    DOUBLED = "doubled"

    def size_of(self, directory: Directory) -> int:
        """The size that a parent has to state, if all below `directory` follow this rule."""
        each = 1 if self is SizeRule.DOCUMENTED else 2
        return each * len(directory.entries) + sum(child.size for child in directory.children)


@dataclass(frozen=True)
class Directory:
    """Entries strictly ascending by the name's bytes; `of` sorts them first."""

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.entries]
        check_names(names)
        if not all(map(lt, names, names[1:])):
            before, name = next(pair for pair in pairwise(names) if pair[0] >= pair[1])
            raise InvalidData(f"entry {name!r} does not come after {before!r}")
        if self.size > MAX_SIZE:
            raise InvalidData(f"size of the Directory is {self.size}, above 64 bits")

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Directory:
        return cls(tuple(sorted(entries, key=itemgetter(0))))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def get(self, name: bytes) -> Node | None:
        return next((node for other, node in self.entries if other == name), None)

    @cached_property
    def children(self) -> list[DirectoryNode]:
        """The nodes of its subdirectories, in order, repeats included."""
        return [node for _, node in self.entries if isinstance(node, DirectoryNode)]

    @cached_property
    def size(self) -> int:
        """The documented size: its entries, plus what its subdirectories say of themselves."""
        return SizeRule.DOCUMENTED.size_of(self)

    @cached_property
    def wire(self) -> bytes:
        """The canonical wire form."""
        return encode_entries(self.entries)

    @cached_property
    def digest(self) -> Digest:
        """BLAKE3 of the canonical wire form: the Directory's name."""
        return Digest.of(self.wire)
