"""Files that share their contents: by reflinks, or where there are none as hard links."""

from __future__ import annotations

import os
import stat

from tvixstore.castore import FileNode
from tvixstore.filesystem.hand import Hand
from tvixstore.filesystem.looking import READ_BYTES, READ_FLAGS, is_that
from tvixstore.filesystem.open_file import give_name
from tvixstore.filesystem.spots import Spot, in_the_way, mode_of, unread


def share(hand: Hand, spot: Spot, node: FileNode, other: Spot) -> None:
    """A file like the one at `other`: it shares its blocks, or else is the very same."""
    at = hand.go(other.way)
    try:
        source = os.open(other.name, READ_FLAGS, dir_fd=at)
    except OSError as error:
        raise unread(hand.path(other), error) from error
    try:
        _copy(hand, spot, node, source)
    except OSError as error:
        raise unread(hand.path(other), error) from error
    finally:
        os.close(source)


def _copy(hand: Hand, spot: Spot, node: FileNode, source: int) -> None:
    if not is_that(source, os.fstat(source), node):
        raise in_the_way(hand.path(spot))
    hand.clear(spot, node, source)
    with hand.begin(spot, node) as opened:
        if opened.clone(source):
            opened.finish()
            return
    if _linked(hand, source, spot, node):
        return
    os.lseek(source, 0, os.SEEK_SET)
    with hand.begin(spot, node) as opened:
        while data := os.read(source, READ_BYTES):
            opened.write(data)
        opened.finish()


def _linked(hand: Hand, source: int, spot: Spot, node: FileNode) -> bool:
    found = os.fstat(source)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != mode_of(node):
        # It was there before, and another link would have its owner and mode.
        return False
    try:
        give_name(source, spot.name, hand.go(spot.way))
    except FileExistsError:
        raise in_the_way(hand.path(spot)) from None
    except OSError:
        # Too many links of one file, or a file system that has none.
        return False
    return True
