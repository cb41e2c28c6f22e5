"""What becomes of a path info when another is put for the same path."""

from __future__ import annotations

from dataclasses import replace

from tvixstore.errors import InvalidData
from tvixstore.nix import KeyRing
from tvixstore.pathinfo.info import Description, PathInfo


def merge(old: PathInfo | None, new: PathInfo, trusted: KeyRing | None) -> PathInfo:
    """What a store that has `old` keeps when `new` is put. Raises `InvalidData` where it refuses.

    The same NAR: the signatures of both, and of the rest what a trusted key vouches for, the older
    first. Another NAR: `new` instead of `old`, if a trusted key vouches for the new one alone.
    """
    if old is None:
        return new
    new_is_better = _is_trusted(new, trusted) and not _is_trusted(old, trusted)
    if not old.same_nar(new):
        if new_is_better:
            return new
        raise InvalidData(
            f"{new.store_path} is here with another NAR "
            f"(sha256 {old.nar_sha256.hex()}, {old.nar_size} bytes; "
            f"put was {new.nar_sha256.hex()}, {new.nar_size} bytes)"
        )
    added = tuple(each for each in new.signatures if each not in old.signatures)
    # The new node's content has just been written; the old one's may have been lost meanwhile.
    return replace(new if new_is_better else old, node=new.node, signatures=old.signatures + added)


def _is_trusted(info: Description, trusted: KeyRing | None) -> bool:
    if trusted is None:
        return False
    signer = trusted.signer(
        info.store_path, info.nar_sha256, info.nar_size, info.references, info.signatures
    )
    return signer is not None
