"""narinfo files out of descriptions, and the texts of those that are asked for often."""

from __future__ import annotations

from tvixstore.http.urls import nar_url
from tvixstore.nix import NarInfo, NixHash
from tvixstore.pathinfo import Description
from tvixstore.policy.lru import Lru

_CACHE_BYTES = 16 << 20


def narinfo_of(description: Description) -> NarInfo:
    """NARs are served as they are, so the file that the narinfo speaks of is the NAR itself."""
    return NarInfo(
        store_path=description.store_path,
        url=nar_url(description),
        compression="none",
        nar_sha256=description.nar_sha256,
        nar_size=description.nar_size,
        references=description.references,
        file_hash=NixHash("sha256", description.nar_sha256),
        file_size=description.nar_size,
        deriver=description.deriver,
        signatures=description.signatures,
        ca=description.ca,
    )


class NarInfoTexts:
    """narinfos as bytes; formatting one costs as much as the rest of the request."""

    def __init__(self, capacity: int = _CACHE_BYTES) -> None:
        self._texts: Lru[bytes, tuple[Description, bytes]] = Lru(capacity)

    def of(self, description: Description) -> bytes:
        key = description.store_path.hash
        known = self._texts.get(key)
        # Mostly it is the same object; comparing an equal one still costs less than formatting it.
        if known is not None and (known[0] is description or known[0] == description):
            return known[1]
        text = str(narinfo_of(description)).encode()
        self._texts.put(key, (description, text), len(text))
        return text
