"""Trees that are read from disk: what is told of them, and what is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.filesystem.places import LARGE, Places
from tests.nar.trees import File, Link, Tree, deep
from tvixstore.errors import TreeError
from tvixstore.filesystem import walk as room
from tvixstore.filesystem.walk import Event, LargeFile, walk
from tvixstore.nar import CloseDirectory, OpenDirectory, Symlink

CHANGED = "changed while it was read"


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def written(path: bytes, mode: str, data: bytes) -> None:
    with open(path, mode) as file:
        file.write(data)


def drain(path: bytes) -> None:
    for _ in walk(path):
        pass


def test_events_come_in_the_order_of_a_nar(places: Places) -> None:
    tree: Tree = {
        b"b": File(b"2", True),
        b"B": Link(b"b"),
        b"a": {b"x": File(b"1")},
        b"c": File(LARGE),
    }
    told: list[object] = []
    for event in walk(places.make(tree)):
        if isinstance(event, LargeFile):
            assert event.read(0, len(LARGE)) == LARGE
            assert event.read(len(LARGE) - 3, 100) == LARGE[-3:]
            told.append((event.name, event.executable, event.size))
        else:
            told.append(event)
    assert told == [
        *(OpenDirectory(b""), Symlink(b"B", b"b"), OpenDirectory(b"a")),
        *(room.File(b"x", False, b"1"), CloseDirectory(), room.File(b"b", True, b"2")),
        *((b"c", False, len(LARGE)), CloseDirectory()),
    ]


def test_whoever_stops_early_leaves_nothing_open(places: Places) -> None:
    path = places.make({b"d": {b"e": {b"f": File(LARGE)}}})
    before = open_descriptors()
    for events in range(6):
        walking = walk(path)
        for _ in range(events):
            next(walking)
        walking.close()
        assert open_descriptors() == before


def test_links_are_told_and_not_followed(places: Places, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("secret")
    link = os.fsencode(tmp_path / "link")
    os.symlink(target, link)
    assert list(walk(link)) == [Symlink(b"", os.fsencode(target))]


def fifo(path: str) -> None:
    os.mkfifo(path)


def listening(path: str) -> None:
    # A path of a socket may be no longer than 107 bytes.
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    os.close(folder)


def device(path: str) -> None:
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))


@pytest.mark.parametrize(
    ("make", "what"),
    [(fifo, "a fifo"), (listening, "a socket"), (device, "a character device")],
)
@pytest.mark.parametrize("below", ["tree", "tree/d"])
def test_what_no_store_path_can_hold_is_named(
    tmp_path: Path, make: Callable[[str], None], what: str, below: str
) -> None:
    (tmp_path / below).mkdir(parents=True)
    odd = f"{tmp_path / below}/odd"
    make(odd)
    for path in (odd, f"{tmp_path}/tree"):
        with pytest.raises(TreeError, match=f"{odd} is {what}, which no store path can hold") as e:
            drain(os.fsencode(path))
        assert e.value.path == os.fsencode(odd)


def test_a_name_is_shown_in_a_way_that_no_terminal_obeys(tmp_path: Path) -> None:
    os.mkfifo(os.fsencode(tmp_path) + b"/\x1b[2J\xff")
    with pytest.raises(TreeError, match=r"\\x1b\[2J\\\\xff' is a fifo"):
        drain(os.fsencode(tmp_path))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "none")
    with pytest.raises(TreeError, match="none cannot be read: No such file or directory"):
        drain(path)


def test_as_many_levels_as_a_nar_can_have_and_no_more(places: Places) -> None:
    drain(places.make(deep(63, File(b""))))
    with pytest.raises(TreeError, match="is below 64 levels, more than a NAR can have"):
        drain(places.make(deep(64, File(b""))))


@pytest.mark.parametrize("size", [100, len(LARGE)])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: written(path, "ab", b"more"),
        lambda path: os.truncate(path, 10),
        lambda path: written(path, "r+b", b"X"),
        lambda path: os.chmod(path, 0o755),
    ],
    ids=["grown", "cut", "written to", "made executable"],
)
def test_a_file_that_changes_while_it_is_read_is_named(
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    change: Callable[[bytes], object],
) -> None:
    path = places.make({b"f": File(LARGE[:size])})
    file = path + b"/f"
    read, pread = os.read, os.pread
    changed: list[object] = []

    def once() -> None:
        if not changed:
            changed.append(change(file))

    def reading(descriptor: int, length: int) -> bytes:
        data = read(descriptor, length)
        once()
        return data

    def reading_at(descriptor: int, length: int, offset: int) -> bytes:
        once()
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "read", reading)
    monkeypatch.setattr(os, "pread", reading_at)
    before = open_descriptors()
    with pytest.raises(TreeError, match=CHANGED) as error:
        for event in walk(path):
            if isinstance(event, LargeFile):
                event.read(0, event.size)
    assert changed and error.value.path == file
    assert open_descriptors() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda path: Path(os.fsdecode(path), "new").touch(),
        lambda path: os.unlink(path + b"/a"),
        lambda path: os.rename(path + b"/z", path + b"/y"),
    ],
    ids=["added to", "taken from", "renamed in"],
)
def test_a_folder_that_changes_while_it_is_read_is_named(
    places: Places, change: Callable[[bytes], object]
) -> None:
    path = places.make({b"a": File(b""), b"z": File(b"")})
    walking = walk(path)
    next(walking)
    change(path)
    with pytest.raises(TreeError, match=CHANGED):
        list(walking)


@pytest.mark.parametrize("was", ["file", "folder", "link"])
@pytest.mark.parametrize("becomes", ["file", "folder", "link", "fifo", "nothing"])
def test_what_takes_the_place_of_something_else_is_neither_followed_nor_waited_for(
    tmp_path: Path, was: str, becomes: str
) -> None:
    if was == becomes:
        pytest.skip("that is no change of kind")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    kinds: dict[str, Callable[[Path], object]] = {
        "file": Path.touch,
        "folder": Path.mkdir,
        # To what could be read, if it were followed.
        "link": lambda path: path.symlink_to(secret / "key" if was == "file" else secret),
        "fifo": os.mkfifo,
        "nothing": lambda path: None,
    }
    (tmp_path / "tree").mkdir()
    victim = tmp_path / "tree/victim"
    kinds[was](victim)
    walking = walk(os.fsencode(tmp_path / "tree"))
    next(walking)
    os.rename(victim, tmp_path / "away")
    kinds[becomes](victim)
    with pytest.raises(TreeError, match="changed while it was read|cannot be read") as error:
        list(walking)
    assert error.value.path == os.fsencode(victim)


def test_a_folder_that_is_moved_away_is_read_where_it_is(tmp_path: Path) -> None:
    """By what is open, not by its path: that may lead elsewhere now."""
    inner = tmp_path / "tree/inner"
    inner.mkdir(parents=True)
    (inner / "f").write_text("right")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/f").write_text("wrong")
    walking = walk(os.fsencode(tmp_path / "tree"))
    seen: list[Event] = [next(walking), next(walking)]
    inner.rename(tmp_path / "moved")
    (tmp_path / "tree/inner").symlink_to(tmp_path / "other")
    seen.append(next(walking))
    assert seen[-1] == room.File(b"f", False, b"right")
    with pytest.raises(TreeError, match=CHANGED):
        list(walking)
