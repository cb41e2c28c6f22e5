"""narinfo files out of descriptions, and the texts of those that are asked for often."""

from __future__ import annotations

from typing import Literal

from tvixstore.http.urls import nar_url, zstd_nar_url
from tvixstore.nix import NarInfo, NixHash
from tvixstore.pathinfo import Description
from tvixstore.policy.lru import Lru

_CACHE_BYTES = 16 << 20


Compression = Literal["none", "zstd"]


def narinfo_of(description: Description, compression: Compression = "none") -> NarInfo:
    """Where NARs are served as they are, the file that it speaks of is the NAR itself.

    Of one that is compressed as it goes out nobody knows hash and size: they are left out.
    """
    plain = compression == "none"
    return NarInfo(
        store_path=description.store_path,
        url=nar_url(description) if plain else zstd_nar_url(description),
        compression=compression,
        nar_sha256=description.nar_sha256,
        nar_size=description.nar_size,
        references=description.references,
        file_hash=NixHash("sha256", description.nar_sha256) if plain else None,
        file_size=description.nar_size if plain else None,
        deriver=description.deriver,
        signatures=description.signatures,
        ca=description.ca,
    )


class NarInfoTexts:
    """narinfos as bytes; formatting one costs as much as the rest of the request."""

    def __init__(self, compression: Compression = "none", capacity: int = _CACHE_BYTES) -> None:
        self._compression: Compression = compression
        self._texts: Lru[bytes, tuple[Description, bytes]] = Lru(capacity)

    def of(self, description: Description) -> bytes:
        key = description.store_path.hash
        known = self._texts.get(key)
        # Mostly it is the same object; comparing an equal one still costs less than formatting it.
        if known is not None and (known[0] is description or known[0] == description):
            return known[1]
        text = str(narinfo_of(description, self._compression)).encode()
        self._texts.put(key, (description, text), len(text))
        return text
