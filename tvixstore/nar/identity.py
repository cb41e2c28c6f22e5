"""What NARs of root nodes are known by, each rendered and hashed once, and remembered.

A root node that came from somewhere else is trusted only as far as its NAR, rendered here, has the
hash that was signed. That costs reading all of it, so it is kept: BLAKE3 of the root node, because
a symlink's node is longer than a key may be, to the NAR's size and SHA-256.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from tvixstore.castore import DIGEST_BYTES, Digest, Node, encode_node
from tvixstore.errors import InvalidData, Unavailable
from tvixstore.log import Logger
from tvixstore.nar.render import render
from tvixstore.policy.single_flight import SingleFlight
from tvixstore.tree import Content

if TYPE_CHECKING:
    from tvixstore.kv import KeyValue

_log = Logger(__name__)

_VERSION: Final = b"\x01"
_CHECKSUM_BYTES: Final = 8
_SIZE_BYTES: Final = 8
_RECORD_BYTES: Final = len(_VERSION) + _CHECKSUM_BYTES + _SIZE_BYTES + 32


@dataclass(frozen=True, slots=True)
class NarIdentity:
    """What a NAR is known by: its size, and the SHA-256 of its bytes."""

    size: int
    sha256: bytes


@dataclass(eq=False)
class NarIdentities:
    """The NARs of trees in `content`, remembered in `table`. Whoever made it closes it."""

    content: Content
    table: KeyValue
    # Identities that could not be written, and have to be found out again.
    unkept: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._flights: SingleFlight[bytes, NarIdentity] = SingleFlight()

    async def known(self, node: Node) -> NarIdentity | None:
        """What is remembered of `node`'s NAR; says nothing of whether its content is still here."""
        record = await self.table.get(_key(node))
        return None if record is None else _decode(record)

    async def of(self, node: Node) -> NarIdentity:
        """What `node`'s NAR is known by: remembered, or else rendered and hashed now.

        Raises `Incomplete` where content is missing, `CorruptData` where a file has another size
        than its blob, and `InvalidData` where the tree is deeper than a NAR can be.
        """
        if (known := await self.known(node)) is not None:
            return known
        return await self._flights.run(_key(node), lambda: self._find_out(node))

    async def keep(self, node: Node, identity: NarIdentity) -> None:
        """Remembers it, durably: for whoever made `node` from that NAR."""
        await self.table.apply([(_key(node), encode_identity(identity))])

    async def aclose(self) -> None:
        """Cancels what is being rendered; those who wait for it get `Unavailable`."""
        await self._flights.aclose()

    async def _find_out(self, node: Node) -> NarIdentity:
        hashed = hashlib.sha256()
        size = 0
        async with render(self.content, node) as nar:
            async for piece in nar:
                hashed.update(piece)
                size += len(piece)
        identity = NarIdentity(size, hashed.digest())
        try:
            await self.keep(node, identity)
        except Unavailable as error:
            # A full disk does not make it any less true.
            self.unkept += 1
            _log.warning("nar.identity_unkept", node=node, reason=str(error))
        return identity


def check_row(key: bytes, record: bytes) -> None:
    """Raises `InvalidData` for a row that `keep` did not write."""
    if len(key) != DIGEST_BYTES or _decode(record) is None:
        raise InvalidData("the record is of another version, or does not have its checksum")


def _key(node: Node) -> bytes:
    return Digest.of(encode_node(node)).raw


def encode_identity(identity: NarIdentity) -> bytes:
    value = identity.size.to_bytes(_SIZE_BYTES, "big") + identity.sha256
    return _VERSION + blake3(value).digest(_CHECKSUM_BYTES) + value


def _decode(record: bytes) -> NarIdentity | None:
    """`None` for a record that is of another version, or damaged: it is found out again."""
    value = record[len(_VERSION) + _CHECKSUM_BYTES :]
    checked = _VERSION + blake3(value).digest(_CHECKSUM_BYTES)
    if len(record) != _RECORD_BYTES or not record.startswith(checked):
        return None
    return NarIdentity(int.from_bytes(value[:_SIZE_BYTES], "big"), value[_SIZE_BYTES:])
