"""Content codings: which of ours a client takes, as RFC 9110 has it. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

Coding: TypeAlias = Literal["zstd", "gzip", "identity"]

# The best first, among those that a client likes equally.
PREFERRED: Final[tuple[Coding, ...]] = ("zstd", "gzip", "identity")

_ALIASES = {"x-gzip": "gzip"}
_ELEMENT = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    r"(?:[ \t]*;[ \t]*[qQ][ \t]*=[ \t]*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?",
    re.ASCII,
)


def accepted(header: str | None) -> list[Coding]:
    """The codings that a client with this Accept-Encoding takes, the best first; maybe none.

    A client that sends none, or nonsense, gets the NAR as it is. So does one that takes anything
    (`*`), as nobody who writes that has zstd in mind.
    """
    if header is None:
        return ["identity"]
    weights = _weights(header)
    if weights is None:
        return ["identity"]
    anything = weights.get("*")
    found: dict[Coding, float] = {
        coding: weights[coding] for coding in PREFERRED if weights.get(coding, 0.0) > 0.0
    }
    if "identity" not in weights and anything != 0.0:
        # Always acceptable unless it is excluded; liked least where it is not named.
        found["identity"] = 0.0
    if not found and anything:
        found = {coding: anything for coding in PREFERRED if coding not in weights}
    return sorted(found, key=lambda coding: -found[coding])


def _weights(header: str) -> dict[str, float] | None:
    weights: dict[str, float] = {}
    for element in header.split(","):
        element = element.strip(" \t")
        if not element:
            continue
        if (match := _ELEMENT.fullmatch(element)) is None:
            return None
        name = match[1].lower()
        weights[_ALIASES.get(name, name)] = 1.0 if match[2] is None else float(match[2])
    return weights
