"""What clients send, as those see it who watch."""

from __future__ import annotations

from typing import Self

from tvixstore.activity import Activity, Work


class Sending:
    """Somebody sends `what` inside; `received` is how many bytes of it have come."""

    __slots__ = ("_work", "received")

    def __init__(self, activity: Activity, what: str) -> None:
        self.received = 0
        self._work = activity.begin(Work("upload", what, "client", self))

    def measured(self) -> tuple[int, int | None, int]:
        """See `activity.Measured`. Nobody says before how much it is."""
        return self.received, None, 0

    def __enter__(self) -> Self:
        self._work.enter("receiving")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._work.enter("done" if kind is None else "failed")
