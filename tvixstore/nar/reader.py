"""NARs, read: feed bytes, take events.

The parser is one generator that walks the grammar in a straight line and hands out `None` whenever
the bytes at hand do not suffice; what it has not consumed by then is at most one name, one symlink
target or one constant, so feeding single bytes stays linear. Between two variable parts of a NAR
the grammar allows only a few constant sequences (see `writer`), which are compared whole. Contents
are never gathered: whatever part of a file is at hand goes out, by slice or as the very object
that was fed.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tvixstore.castore import MAX_NAME_BYTES, MAX_TARGET_BYTES, SymlinkNode, check_name
from tvixstore.errors import InvalidData
from tvixstore.nar.writer import (
    CLOSE,
    CLOSE_TWICE,
    DIRECTORY,
    ENTRY,
    EXECUTABLE,
    MAGIC,
    MAX_LENGTH,
    MAX_LEVELS,
    NODE,
    REGULAR,
    SYMLINK,
    U64,
    close_regular,
)


@dataclass(frozen=True, slots=True)
class OpenDirectory:
    """A directory begins; what it holds follows, then `CloseDirectory`. The root has no name."""

    name: bytes


@dataclass(frozen=True, slots=True)
class CloseDirectory:
    """The directory opened last, and not closed yet, is over."""


@dataclass(frozen=True, slots=True)
class Symlink:
    name: bytes
    target: bytes


@dataclass(frozen=True, slots=True)
class Regular:
    """A file of `size` bytes, the first of which stand at `offset` of the NAR.

    `contents` is what of them was at hand: all of a small file, as a rule. The rest follows in
    `Contents`, before any other event.
    """

    name: bytes
    size: int
    executable: bool
    offset: int
    contents: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """More bytes of the file begun last; never empty."""

    data: bytes


Event: TypeAlias = OpenDirectory | CloseDirectory | Symlink | Regular | Contents

_CLOSED = CloseDirectory()
_BARE_NODES = (REGULAR, DIRECTORY, SYMLINK, EXECUTABLE)
# What may stand where a node begins; a node in a directory stands after the word "node".
_ROOTS = {node: node for node in _BARE_NODES}
_NODES = {NODE + node: node for node in _BARE_NODES}
_LONGEST_CONSTANT = max(map(len, (MAGIC, ENTRY, *_NODES)))


class NarReader:
    """Reads one NAR: `feed` bytes and take all `events`, again and again, then `finish`.

    Everything raises `InvalidData` for what is not the one canonical form of a NAR, with the offset
    at which it was noticed; the reader is of no use after that. `nar_size`, where it was announced,
    bounds every length in it.
    """

    def __init__(self, nar_size: int = MAX_LENGTH) -> None:
        self._nar_size = nar_size
        self._buffer = b""
        self._position = 0
        # How much of the NAR came before the buffer.
        self._before = 0
        self._ended = False
        self._parser = self._parse()

    @property
    def offset(self) -> int:
        """How many bytes of the NAR were consumed."""
        return self._before + self._position

    def feed(self, data: bytes) -> None:
        """Takes the next bytes. The events of what was fed before were taken already."""
        rest = self._buffer[self._position :]
        self._before += self._position
        self._position = 0
        self._buffer = rest + data if rest else data

    def events(self) -> Iterator[Event]:
        """What the bytes fed so far tell, up to where more of them are needed."""
        # The two-argument `iter` stops at the parser's None and leaves the parser where it is.
        return iter(self._parser.__next__, None)

    def finish(self) -> None:
        """To be called at the end of the input: raises unless the NAR is whole."""
        if not self._ended:
            raise InvalidData(f"the NAR ends early, after {self._before + len(self._buffer)} bytes")

    def _parse(self) -> Generator[Event | None, None, None]:
        yield from self._take_constant((MAGIC,))
        # The last name seen in each directory that is open, the root first.
        last_names: list[bytes] = []
        name = b""
        while True:
            nodes = _NODES if last_names else _ROOTS
            node = nodes[(yield from self._take_constant(nodes))]
            if node is DIRECTORY:
                yield OpenDirectory(name)
                last_names.append(b"")
            elif node is SYMLINK:
                target = yield from self._take_string("symlink target", MAX_TARGET_BYTES)
                target = SymlinkNode(target).target
                yield from self._take_constant((CLOSE_TWICE if last_names else CLOSE,))
                yield Symlink(name, target)
            else:
                yield from self._parse_contents(name, node is EXECUTABLE)
            # Directories end here, as many as do, until there is an entry.
            while last_names:
                close = CLOSE if len(last_names) == 1 else CLOSE_TWICE
                if (yield from self._take_constant((ENTRY, close))) is ENTRY:
                    name = yield from self._take_name(last_names)
                    break
                last_names.pop()
                yield _CLOSED
            else:
                break
        self._ended = True
        while self._position == len(self._buffer):
            yield None
        raise self._invalid("bytes after its end")

    def _parse_contents(self, name: bytes, executable: bool) -> Generator[Event | None, None, None]:
        while len(self._buffer) < self._position + U64.size:
            yield None
        size: int = U64.unpack_from(self._buffer, self._position)[0]
        if size > self._nar_size - self.offset:
            raise self._invalid(f"contents of {size} bytes, more than the NAR can hold")
        self._position += U64.size
        offset = self.offset
        data = self._take_at_hand(size)
        yield Regular(name, size, executable, offset, data)
        left = size - len(data)
        while left:
            if data := self._take_at_hand(left):
                left -= len(data)
                yield Contents(data)
            else:
                yield None
        yield from self._take_constant((close_regular(name, size),))

    def _take_at_hand(self, limit: int) -> bytes:
        """Up to `limit` bytes of what was fed."""
        start, end = self._position, min(self._position + limit, len(self._buffer))
        self._position = end
        # Slicing all of a bytes object copies nothing.
        return self._buffer[start:end]

    def _take_constant(self, choices: Collection[bytes]) -> Generator[None, None, bytes]:
        """Whichever of `choices` comes next."""
        while True:
            buffer, position = self._buffer, self._position
            for constant in choices:
                if buffer.startswith(constant, position):
                    self._position += len(constant)
                    return constant
            rest = buffer[position : position + _LONGEST_CONSTANT]
            if not any(constant.startswith(rest) for constant in choices):
                raise self._invalid("unexpected bytes")
            yield None

    def _take_string(self, what: str, limit: int) -> Generator[None, None, bytes]:
        """A string of 1 to `limit` bytes."""
        while True:
            buffer, start = self._buffer, self._position + U64.size
            if len(buffer) >= start:
                size: int = U64.unpack_from(buffer, start - U64.size)[0]
                if not 1 <= size <= limit:
                    raise self._invalid(f"a {what} of {size} bytes, expected 1 to {limit}")
                end, padded = start + size, start + size + -size % 8
                if len(buffer) >= padded:
                    if any(buffer[end:padded]):
                        raise self._invalid(f"a {what} padded with something else than zeros")
                    self._position = padded
                    return buffer[start:end]
            yield None

    def _take_name(self, last_names: list[bytes]) -> Generator[None, None, bytes]:
        if len(last_names) == MAX_LEVELS:
            raise self._invalid(f"more than {MAX_LEVELS} levels")
        name = yield from self._take_string("name", MAX_NAME_BYTES)
        check_name(name)
        if name <= last_names[-1]:
            raise self._invalid(f"the name {name!r} after {last_names[-1]!r}")
        last_names[-1] = name
        return name

    def _invalid(self, what: str) -> InvalidData:
        return InvalidData(f"the NAR has {what}, at byte {self.offset}")
