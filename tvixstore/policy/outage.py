"""Says once that something has begun to fail, and once that it works again."""

from __future__ import annotations

from tvixstore.log import Logger


class Outage:
    """Logs the event `begins` for the first failure, and `ends` with how many there were."""

    def __init__(self, log: Logger, begins: str, ends: str) -> None:
        self._log = log
        self._begins = begins
        self._ends = ends
        self.failures = 0

    def failed(self, error: Exception) -> None:
        """It failed, for the first time or once more."""
        self.failures += 1
        if self.failures == 1:
            self._log.warning(self._begins, reason=str(error) or type(error).__name__)

    def over(self) -> None:
        """It worked."""
        if self.failures:
            self._log.info(self._ends, failures=self.failures)
            self.failures = 0
