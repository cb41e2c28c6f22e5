"""What several members that did not have it say together: absent, skipped or unknown."""

from __future__ import annotations

from tvixstore.errors import Skipped, StoreError, Unavailable
from tvixstore.log import Logger

log = Logger("tvixstore.policy.verdict")


class NobodyKnows(Unavailable):
    """No member had it, and some could not say; `reasons` are (member, reason) in their order."""

    def __init__(
        self, reasons: tuple[tuple[str, str], ...], *, retry_after: float | None = None
    ) -> None:
        super().__init__(
            "; ".join(f"{name}: {reason}" for name, reason in reasons), retry_after=retry_after
        )
        self.reasons = reasons


class Verdict:
    """Collects the answers of members that did not have it.

    Absent is the verdict only where all said so. `Skipped` (optional members that are down) weighs
    less than any other failure: it is the verdict only where nobody else failed.
    """

    def __init__(self) -> None:
        self._answered = False
        self._failed = False
        self._reasons: list[tuple[str, str]] = []
        self._skipped: list[str] = []
        self._retry_after: list[float] = []

    def absent(self) -> None:
        """One more member does not have it."""
        self._answered = True

    def failed(self, name: str, error: Exception) -> None:
        """One more member could not say."""
        if isinstance(error, Skipped):
            self._skipped += error.names
            self._answered |= error.answered
        else:
            self._failed = True
        if isinstance(error, NobodyKnows):
            # Of a group within this group, the members are what counts.
            self._reasons += error.reasons
        else:
            self._reasons.append((name, str(error) or type(error).__name__))
        if isinstance(error, Unavailable) and error.retry_after is not None:
            self._retry_after.append(error.retry_after)
        if not isinstance(error, StoreError | OSError):
            # A bug in one member must not take the others down with it, nor go unseen.
            log.error("member.crashed", exc_info=error, node=name)

    def conclude(self) -> None:
        """Returns if all said absent; raises `Unavailable`, or `Skipped`, otherwise."""
        if not self._reasons:
            return
        failure = NobodyKnows(
            tuple(self._reasons), retry_after=min(self._retry_after, default=None)
        )
        if self._failed:
            raise failure
        raise Skipped(str(failure), self._skipped, answered=self._answered)
