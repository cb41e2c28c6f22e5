"""What `ls` prints of what it finds, as it comes: lines, or one JSON document.

Neither is held as a whole: a few Directories, each of them twice in the next, are more than memory
can hold.
"""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from tvixstore.castore import DirectoryNode, FileNode, Node

if TYPE_CHECKING:
    from tvixstore.filesystem import Inside


class Listing(ABC):
    """Takes what is found, in the order of a NAR."""

    @abstractmethod
    def add(self, name: bytes, node: Node) -> bytes:
        """What to print for what is called `name` below where it was begun.

        What comes without a name is no folder, and nothing else comes then.
        """

    def finish(self) -> bytes:
        """The rest."""
        return b""


class Lines(Listing):
    """As `nix store ls` prints them; `long` with modes, sizes, and where links lead."""

    def __init__(self, inside: Inside, *, long: bool) -> None:
        self._inside = inside
        self._long = long

    def add(self, name: bytes, node: Node) -> bytes:
        if name:
            return self._line(b"./" + name, node)
        base_name = self._inside.store_path.base_name.encode()
        return self._line([base_name, *self._inside.names][-1], node)

    def _line(self, name: bytes, node: Node) -> bytes:
        if not self._long:
            return _shown(name) + b"\n"
        match node:
            case FileNode(_, size, executable):
                mode, end = b"-r-xr-xr-x" if executable else b"-r--r--r--", b""
            case DirectoryNode():
                mode, size, end = b"dr-xr-xr-x", 0, b""
            case _:
                mode, size, end = b"lrwxrwxrwx", 0, b" -> " + _shown(node.target)
        return b"%s %20d %s%s\n" % (mode, size, _shown(name), end)


def _shown(name: bytes) -> bytes:
    """To the byte, unless a terminal would obey it."""
    from tvixstore.filesystem import shown

    return shown(name).encode() if sys.stdout.isatty() else name


_OPENED: Final = '{"type":"directory","entries":{'
_CLOSED: Final = "}}"


class Document(Listing):
    """As `nix store ls --json` prints it, without `narOffset`.

    With `recursive`, all folders say what they hold; without, the outermost one alone. All of it is
    ASCII. A byte that is no UTF-8 is written as a surrogate (0xff as `\\udcff`), of which Python's
    `os.fsencode` makes that byte again.
    """

    def __init__(self, *, recursive: bool) -> None:
        self._recursive = recursive
        self._begun = False
        # Of the folders that are open.
        self._depth = 0
        # Between the entries of a folder; nothing before its first one.
        self._comma = ""

    def add(self, name: bytes, node: Node) -> bytes:
        if not name:
            self._begun = True
            return _text(_described(node)).encode()
        *above, own = name.split(b"/")
        parts = [self._moved(1 + len(above)), self._comma, _text(os.fsdecode(own)), ":"]
        if isinstance(node, DirectoryNode) and self._recursive:
            parts.append(_OPENED)
            self._depth += 1
            self._comma = ""
        else:
            parts.append(_text(_described(node)))
            self._comma = ","
        return "".join(parts).encode()

    def finish(self) -> bytes:
        empty = "" if self._begun else _OPENED + _CLOSED
        return f"{empty}{self._moved(0)}\n".encode()

    def _moved(self, depth: int) -> str:
        """What closes folders until `depth` of them are open, or opens the outermost one."""
        if not self._begun and depth:
            self._begun, self._depth = True, 1
            return _OPENED
        closed = _CLOSED * (self._depth - depth)
        if closed:
            self._depth, self._comma = depth, ","
        return closed


def _described(node: Node) -> dict[str, Any]:
    match node:
        case FileNode(_, size, executable):
            file: dict[str, Any] = {"type": "regular", "size": size}
            return {**file, "executable": True} if executable else file
        case DirectoryNode():
            return {"type": "directory"}
    return {"type": "symlink", "target": os.fsdecode(node.target)}


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
