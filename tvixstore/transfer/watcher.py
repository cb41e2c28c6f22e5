"""Who is told how a copy goes on, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tvixstore.pathinfo import Description

Outcome = Literal["copied", "skipped"]


@dataclass(slots=True)
class Report:
    """What was done with each path so far, in the order that it was done."""

    paths: list[tuple[Description, Outcome]] = field(default_factory=list)
    # Bytes of content that were sent: of blobs, or of NARs before they were compressed.
    sent: int = 0

    def of(self, outcome: Outcome) -> list[Description]:
        return [description for description, what in self.paths if what == outcome]


class Watcher:
    """Is told how it goes; this one does not look. None of these calls may wait."""

    def planned(self, paths: int, size: int) -> None:
        """So many paths with NARs of so many bytes are to be copied or skipped."""

    def began(self, description: Description) -> None:
        """Its content is being copied now."""

    def advanced(self, description: Description, size: int) -> None:
        """So many bytes more of it are in the target, or were there."""

    def differs(self, description: Description, there: Description) -> None:
        """The target has another NAR for that path, and keeps it."""

    def done(self, description: Description, outcome: Outcome) -> None:
        """The target has it now, or had it before."""


@dataclass(frozen=True, slots=True)
class Meter:
    """Counts the bytes of one path."""

    description: Description
    report: Report
    watcher: Watcher

    def sent(self, size: int) -> None:
        """So many went to the target."""
        self.report.sent += size
        self.watcher.advanced(self.description, size)

    def spared(self, size: int) -> None:
        """So many did not have to."""
        self.watcher.advanced(self.description, size)
