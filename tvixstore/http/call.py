"""What the answers to requests are given to go by."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from tvixstore.http.front import HttpFront, Inbox
from tvixstore.http.incoming import Incoming
from tvixstore.http.narinfo import NarInfoTexts


@dataclass(slots=True)
class Call:
    """What routes see of a request, and of the front door that it came to."""

    front: HttpFront
    texts: NarInfoTexts
    method: str
    headers: Mapping[str, str]
    incoming: Incoming
    # Set when the door is about to close.
    ended: asyncio.Event

    @property
    def draining(self) -> bool:
        return self.ended.is_set()

    @property
    def inbox(self) -> Inbox:
        """Where what is put goes: only what may be put gets that far."""
        assert self.front.inbox is not None
        return self.front.inbox
