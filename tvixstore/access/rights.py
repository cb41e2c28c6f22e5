"""What somebody may do, and how a refusal reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

# `read`: everything that is served. `write`: putting. `admin`: pins, repairs and the like. None of
# them implies another: whoever pushes with Nix needs `read,write`, as it looks before it puts.
Right = Literal["read", "write", "admin"]
Rights = frozenset[Right]

ALL: Final[tuple[Right, ...]] = get_args(Right)
NONE: Final[Rights] = frozenset()


@dataclass(frozen=True, slots=True)
class Denied:
    """Why not. `anonymous`: without credentials that count here, so that others may help.

    What it says depends on who asks and for which right, and never on what is asked for.
    """

    reason: str
    anonymous: bool = False
