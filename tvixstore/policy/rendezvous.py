"""Which of several members has a key, by rendezvous hashing: nobody needs to keep a table.

Each member draws a lot for each key, from a hash of both; the highest draws it. A member that comes
or goes changes nobody else's lots, so it takes, or leaves, only its own share of the keys. Whoever
had a key before is then the next in its order. With weights w the lot is -w / ln(u), for u uniform
between 0 and 1: the chance to draw the highest is then in proportion to w.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

_RANGE = float(1 << 64)


@dataclass(frozen=True)
class Rendezvous:
    """The members' `names`, which their lots are drawn by, and their weights."""

    names: Sequence[str]
    weights: Sequence[float]

    def order(self, key: bytes) -> list[int]:
        """The members' places, the one that has the key first."""
        return sorted(range(len(self.names)), key=lambda place: -self._lot(place, key))

    def _lot(self, place: int, key: bytes) -> float:
        name = self.names[place].encode()
        drawn = hashlib.blake2b(key, digest_size=8, key=hashlib.sha256(name).digest()).digest()
        # Never 0 or 1, whose logarithms there are none of use of.
        uniform = (int.from_bytes(drawn, "big") + 0.5) / (_RANGE + 1.0)
        return -self.weights[place] / math.log(uniform)
