"""What one thread puts things of a tree on disk with."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from tvixstore.castore import Directory, FileNode
from tvixstore.errors import TreeError
from tvixstore.filesystem.filling import (
    FOLDER_FLAGS,
    MARK,
    SMALL,
    clear_torn,
    fill,
    is_marked,
    made_folder,
    may_be_torn,
)
from tvixstore.filesystem.looking import ANOTHER_KIND, READ_FLAGS, is_that, target_of
from tvixstore.filesystem.open_file import OpenFile, clear_partial
from tvixstore.filesystem.spots import (
    FOLDER_MODE,
    Spot,
    Way,
    in_the_way,
    mode_of,
    unread,
    unwritten,
)

if TYPE_CHECKING:
    from tvixstore.filesystem.placing import Placing


class Hand:
    """Keeps the folders open that lead to where it put something last."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing
        self.fresh = placing.fresh
        self._names: list[bytes] = []
        self._descriptors = [placing.descriptor]
        # Whether each of them is marked.
        self._marked = [False]
        # Where it is, unless it failed to get there.
        self._way: Way | None = ()

    def close(self) -> None:
        while self._names:
            self._leave()

    def folder(self, spot: Spot, directory: Directory) -> None:
        """A folder. One that is there already may have nothing that `directory` has not."""
        at = self.go(spot.way)
        marking = self._placing.marking
        try:
            made = made_folder(spot.name, at, MARK if marking else FOLDER_MODE)
            inside = self.go((*spot.way, spot.name))
            if made:
                # Of a mode that depended on the umask, or on what the file system knows of modes.
                if not (marking and self._marked[-1]):
                    os.fchmod(inside, FOLDER_MODE)
                return
            self._check(spot, inside, directory)
        except OSError as error:
            raise unwritten(self.path(spot), error) from error

    def finish(self, spot: Spot) -> None:
        """That folder, once all that belongs there is there."""
        inside = self.go((*spot.way, spot.name))
        if self._marked[-1]:
            try:
                os.fchmod(inside, FOLDER_MODE)
            except OSError as error:
                raise unwritten(self.path(spot), error) from error
            self._marked[-1] = False

    def link(self, spot: Spot, target: bytes) -> None:
        at = self.go(spot.way)
        try:
            os.symlink(target, spot.name, dir_fd=at)
        except FileExistsError:
            if target_of(spot.name, at) != target:
                raise self._in_the_way(spot) from None
        except OSError as error:
            raise unwritten(self.path(spot), error) from error

    def file(self, spot: Spot, node: FileNode, contents: bytes) -> None:
        """A small one; it was looked at before whether it is there."""
        at = self.go(spot.way)
        if not (self._marked[-1] and self._placing.marking):
            with self.begin(spot, node) as opened:
                opened.write(contents)
                opened.finish()
            return
        try:
            try:
                fill(at, node, spot.name, contents)
            except FileExistsError:
                if self.fresh:
                    raise
                clear_torn(at, node, spot.name, contents, self.path(spot))
                fill(at, node, spot.name, contents)
        except OSError as error:
            raise unwritten(self.path(spot), error) from error

    def clear(self, spot: Spot, node: FileNode, source: int) -> None:
        """Makes room for a file with the contents of `source`, where only its beginning is."""
        at = self.go(spot.way)
        if self.fresh or not (self._marked[-1] and self._placing.marking) or node.size > SMALL:
            return
        try:
            contents = os.pread(source, node.size, 0)
            clear_torn(at, node, spot.name, contents, self.path(spot))
        except FileNotFoundError:
            return
        except OSError as error:
            raise unwritten(self.path(spot), error) from error

    def begin(self, spot: Spot, node: FileNode) -> OpenFile:
        """One whose contents are to be written."""
        at = self.go(spot.way)
        try:
            return OpenFile(self.path(spot), at, spot.name, node, self._placing.token)
        except OSError as error:
            raise unwritten(self.path(spot), error) from error

    def has(self, spot: Spot, node: FileNode) -> bool:
        """Whether that very file is there. Raises `TreeError` if something else is."""
        at = self.go(spot.way)
        try:
            descriptor = os.open(spot.name, READ_FLAGS, dir_fd=at)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in ANOTHER_KIND:
                raise self._in_the_way(spot) from None
            raise unread(self.path(spot), error) from error
        try:
            found = os.fstat(descriptor)
            marked = self._marked[-1] and self._placing.marking
            if is_that(descriptor, found, node):
                # One that was broken off before it had its mode is written anew.
                return not marked or stat.S_IMODE(found.st_mode) == mode_of(node)
            if not (marked and may_be_torn(found, node)):
                raise self._in_the_way(spot)
        except OSError as error:
            raise unread(self.path(spot), error) from error
        finally:
            os.close(descriptor)
        return False

    def _check(self, spot: Spot, inside: int, directory: Directory) -> None:
        """A folder that was there before."""
        names = {os.fsencode(name) for name in os.listdir(inside)}
        if not names and spot.way and not self._marked[-1]:
            # Of an extraction that was broken off before it gave it its mode.
            os.fchmod(inside, FOLDER_MODE)
        for name in names - {name for name, _ in directory}:
            if not clear_partial(name, inside, self._placing.token):
                raise TreeError(
                    self.path(spot) + b"/" + name,
                    "is there, and not in what is to be put there: choose another place",
                )

    def go(self, way: Way) -> int:
        """Opens the folder at the end of `way`, which was put there before what is in it."""
        if way == self._way:
            return self._descriptors[-1]
        self._way = None
        common = 0
        while common < min(len(way), len(self._names)) and way[common] == self._names[common]:
            common += 1
        while len(self._names) > common:
            self._leave()
        for name in way[common:]:
            try:
                descriptor = os.open(name, FOLDER_FLAGS, dir_fd=self._descriptors[-1])
                self._descriptors.append(descriptor)
                self._names.append(name)
                self._marked.append(is_marked(descriptor))
            except OSError as error:
                path = b"/".join([self._placing.top, *self._names, name])
                raise unwritten(path, error) from error
        self._way = way
        return self._descriptors[-1]

    def _leave(self) -> None:
        self._names.pop()
        self._marked.pop()
        os.close(self._descriptors.pop())

    def path(self, spot: Spot) -> bytes:
        return b"/".join([self._placing.top, *spot.way, spot.name])

    def _in_the_way(self, spot: Spot) -> TreeError:
        return in_the_way(self.path(spot))
