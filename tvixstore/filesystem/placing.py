"""A tree put on disk, for threads: nothing but inside of one folder, and nothing over what exists.

Each folder is opened below the one that it is in, and links are not followed. A file gets its name
when it is complete, by a link that does not replace anything; or at once, in a folder that is
marked until all of it is there. So whatever breaks an extraction off, beginning again knows what is
done, and finishes it.
"""

from __future__ import annotations

import os
import secrets

from tvixstore.castore import DirectoryNode, Node
from tvixstore.errors import TreeError
from tvixstore.filesystem.filling import FOLDER_FLAGS, MARK, is_marked, lock, made_folder
from tvixstore.filesystem.hand import Hand
from tvixstore.filesystem.looking import is_there
from tvixstore.filesystem.spots import FOLDER_MODE, unwritten


class Placing:
    """Puts one tree below the folder `top`, in any number of threads, once one has called `begin`.

    To be closed after them.
    """

    def __init__(self, top: bytes) -> None:
        self.top = top
        self.token = secrets.token_hex(8).encode()
        self.descriptor = -1
        # Nothing was there before, so nothing is looked for.
        self.fresh = False
        # Whether folders are marked while they are filled.
        self.marking = False
        self._root = -1

    def begin(self, name: bytes, root: Node) -> None:
        """Makes the folder at the top of the tree, if it is one, and keeps others from it."""
        try:
            self.descriptor = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unwritten(self.top, error) from error
        path = self.top + b"/" + name
        try:
            if not isinstance(root, DirectoryNode):
                self.fresh = not is_there(name, self.descriptor)
                return
            if is_marked(self.descriptor):
                raise TreeError(
                    self.top,
                    "was not filled to the end by the extraction that made it: repeat that",
                )
            self.fresh = made_folder(name, self.descriptor, MARK)
            self._root = os.open(name, FOLDER_FLAGS, dir_fd=self.descriptor)
            self.marking = lock(self._root, path)
            if self.fresh and not (self.marking and is_marked(self._root)):
                os.fchmod(self._root, FOLDER_MODE)
        except OSError as error:
            raise unwritten(path, error) from error

    def close(self) -> None:
        for descriptor in (self._root, self.descriptor):
            if descriptor >= 0:
                os.close(descriptor)

    def hand(self) -> Hand:
        """What one thread works with. To be closed by it."""
        return Hand(self)
