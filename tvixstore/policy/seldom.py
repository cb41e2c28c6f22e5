"""Says at most once a minute what somebody else can have happen as often as he likes."""

from __future__ import annotations

import time
from typing import Final

from tvixstore.log import Logger

_QUIET: Final = 60.0


class Seldom:
    """Logs `event` as a warning, with how often it happened since the last line."""

    def __init__(self, log: Logger, event: str) -> None:
        self._log = log
        self._event = event
        self._count = 0
        self._quiet_until = 0.0

    def note(self, **fields: object) -> None:
        """It happened."""
        self._count += 1
        if (now := time.monotonic()) >= self._quiet_until:
            self._log.warning(self._event, count=self._count, **fields)
            self._count, self._quiet_until = 0, now + _QUIET
