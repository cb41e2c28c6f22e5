"""The error tree. It is translated once at each boundary: to an HTTP status, to an exit code.

Absence is never an error: a service answers `None`. What is raised here means *unknown* or
*broken*, and says what happened, where (node, upstream, key) and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence


class StoreError(Exception):
    """The root of everything that this package raises on purpose."""


class InvalidData(StoreError):
    """The caller's input is wrong: a bad name, a Directory that is not canonical."""


class TooLong(InvalidData):
    """The caller's input is longer than input of its kind may be."""


class TreeError(InvalidData):
    """A tree on disk that cannot be taken as it is, or a place on disk where none can be put.

    `path` is what it is about: the file that changed while it was read, or that is in the way.
    """

    def __init__(self, path: bytes, what: str) -> None:
        text = path.decode(errors="backslashreplace")
        super().__init__(f"{text if text.isprintable() else ascii(text)} {what}")
        self.path = path


class CorruptData(StoreError):
    """What a store or an upstream holds is wrong, or cannot be trusted: a hash that differs."""


class Untrusted(CorruptData):
    """Nobody who is trusted vouches for it; of what else its source has, that says nothing."""


class Unavailable(StoreError):
    """Nobody knows: the answer could not be had now. Never to be reported or kept as absent."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        # Seconds after which whoever could not answer wants to be asked again, if it said so.
        self.retry_after = retry_after


class Unreachable(Unavailable):
    """No connection came about in the time that it may take: there may be nobody there."""


class Incomplete(Unavailable):
    """A closure or a blob lacks a part: `digest` (32 bytes) names the first one found missing."""

    def __init__(self, message: str, digest: bytes) -> None:
        super().__init__(message)
        self.digest = digest


class StorageFull(Unavailable):
    """The state directory takes no more: the disk is full, or `min_free`/`max_size` says so."""


class Skipped(Unavailable):
    """Substituters declared `optional` are down, and nobody else has the path.

    `answered` is true when at least one other member really said "absent". Only then may a
    narinfo lookup over HTTP read this as absent; for everybody else it is unknown like any other.
    """

    def __init__(self, message: str, names: Sequence[str], *, answered: bool) -> None:
        super().__init__(message)
        self.names = tuple(names)
        self.answered = answered


class AbsentPath(StoreError):
    """Of an operation on store paths: one that was named, or that one of them needs, is nowhere.

    What only looks for a path answers `None` instead.
    """


class ReadOnly(StoreError):
    """This service, or every writable part of it, takes no writes."""


class Unsupported(StoreError):
    """This service cannot do that at all, however often it is asked."""


class ConfigError(StoreError):
    """A composition that cannot be used; `str()` lists every mistake, a line each."""


class StateInUse(ConfigError):
    """Another process, most likely a daemon, has the state directory."""
