"""Many small blobs in a call, of a daemon that has `tvixstore.v1.Blobs`: ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tvixstore.castore import Digest, FileNode
from tvixstore.errors import CorruptData
from tvixstore.rpc.client.peer import Peer
from tvixstore.rpc.methods import BLOBS_AT_HAND, LACKING_BLOBS, PUT_BLOBS

# Digests that are asked of in one call, and bytes of blobs that are put in one.
_ASKED: Final = 2000
_CALL: Final = 8 << 20
# Counted for each blob beside its bytes, so that the digests of a call fit into its reply.
_OVERHEAD: Final = 96
# Messages read ahead of whoever takes them apart.
_MESSAGES_AHEAD: Final = 8


@dataclass(frozen=True, slots=True)
class SmallBlobs:
    """The small blobs of `peer`, in messages of about `message_bytes`.

    Everything raises `Unimplemented` where the peer does not know these calls.
    """

    peer: Peer
    message_bytes: int

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        """See `BlobService.lacking`."""
        lacking: set[Digest] = set()
        for begin in range(0, len(digests), _ASKED):
            part = digests[begin : begin + _ASKED]
            answer = await self.peer.ask(LACKING_BLOBS, part)
            # Whatever else it names was not asked of.
            lacking.update(part if answer is None else set(answer).intersection(part))
        return lacking

    async def put(self, blobs: Sequence[bytes]) -> list[Digest]:
        """See `BlobService.put_many`."""
        digests: list[Digest] = []
        for batch in self._batches(blobs):
            stored = await self.peer.tell(PUT_BLOBS, batch, patient=True)
            digests += stored
        expected = [Digest.of(data) for data in blobs]
        if digests != expected:
            raise CorruptData(f"{self.peer.name} says that it stored other blobs than were sent")
        return digests

    async def read(self, files: Sequence[FileNode], contents: dict[Digest, bytes]) -> None:
        """Puts into `contents` those that the peer has at hand, verified, in one call.

        What came before an error is there as well.
        """
        left = sum(file.size for file in files)
        wanted = {file.digest for file in files}
        replies = await self.peer.serve(BLOBS_AT_HAND, files, _MESSAGES_AHEAD) if files else None
        if replies is None:
            return
        more = len(files) + 1
        async with replies:
            async for batch in replies:
                more -= 1
                if more < 0:
                    # Empty ones, and perhaps without end.
                    raise CorruptData(
                        f"{self.peer.name} sent more replies than it was asked for blobs"
                    )
                for data in batch:
                    digest = Digest.of(data)
                    left -= len(data)
                    if digest not in wanted or left < 0:
                        raise CorruptData(f"{self.peer.name} sent blobs that were not asked for")
                    contents[digest] = data

    def _batches(self, blobs: Sequence[bytes]) -> Iterator[list[Sequence[bytes]]]:
        """As many messages as make a call, of as many blobs as make a message."""
        messages: list[Sequence[bytes]] = []
        message: list[bytes] = []
        held = sent = 0
        for data in blobs:
            if message and held + len(data) > self.message_bytes:
                messages.append(message)
                sent += held
                message, held = [], 0
                if sent >= _CALL:
                    yield messages
                    messages, sent = [], 0
            message.append(data)
            # What it is in a message, and to whoever holds it.
            held += len(data) + _OVERHEAD
        if message:
            messages.append(message)
        if messages:
            yield messages
