"""Hashes as Nix writes them: `sha256:<hex | nixbase32 | base64>`, or SRI."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

from tvixstore.errors import InvalidData
from tvixstore.nix import nixbase32

Algorithm = Literal["md5", "sha1", "sha256", "sha512"]

SIZES: dict[str, int] = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}


@dataclass(frozen=True, slots=True)
class NixHash:
    """A digest with the name of its algorithm."""

    algorithm: Algorithm
    digest: bytes

    def __post_init__(self) -> None:
        size = SIZES.get(self.algorithm)
        if size is None:
            raise InvalidData(f"hash algorithm {self.algorithm!r} is not known")
        if len(self.digest) != size:
            raise InvalidData(f"{self.algorithm} digest is {len(self.digest)} bytes, not {size}")

    @classmethod
    def parse(cls, text: str) -> NixHash:
        """From `<algorithm>:<digits>` in any of Nix's encodings, or SRI `<algorithm>-<base64>`."""
        algorithm, colon, digits = text.partition(":")
        decoders = _DECODERS
        if not colon:
            algorithm, dash, digits = text.partition("-")
            if not dash:
                raise InvalidData(f"{text!r} is not a hash: no algorithm in front")
            decoders = _SRI_DECODERS
        size = SIZES.get(algorithm)
        if size is None:
            raise InvalidData(f"hash algorithm {algorithm!r} is not known")
        decode = decoders.get((size, len(digits)))
        if decode is None:
            raise InvalidData(f"{text!r} has {len(digits)} digits, which is no {algorithm} hash")
        try:
            digest = decode(digits)
        except ValueError:
            raise InvalidData(f"{text!r} has digits of no encoding that is this long") from None
        return cls(cast("Algorithm", algorithm), digest)

    def __str__(self) -> str:
        return f"{self.algorithm}:{nixbase32.encode(self.digest)}"


def _decode_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


# The number of digits tells the encodings of a digest apart: no two of them are equally long.
_SRI_DECODERS: dict[tuple[int, int], Callable[[str], bytes]] = {
    (size, (size + 2) // 3 * 4): _decode_base64 for size in SIZES.values()
}
_DECODERS: dict[tuple[int, int], Callable[[str], bytes]] = {
    **_SRI_DECODERS,
    **{(size, size * 2): binascii.unhexlify for size in SIZES.values()},
    **{(size, nixbase32.digits_for(size)): nixbase32.decode for size in SIZES.values()},
}
