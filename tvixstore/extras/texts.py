"""Logs as plain text, whatever they were compressed with on the way or where they lie."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Sequence
from typing import Final

from tvixstore.compression import SNIFFED, Decoder, decoder, sniff
from tvixstore.errors import CorruptData, InvalidData, TooLong, Unsupported
from tvixstore.pools import Pools

MAX_LOG_BYTES: Final = 256 << 20
_SLICE: Final = 1 << 20
# Formats that no text begins like. Others (br, lzma) show nowhere but in the Content-Encoding.
_TELLING: Final = frozenset({"xz", "zstd", "bzip2", "gzip", "lz4"})


async def plain_text(
    body: AsyncIterable[bytes], encodings: Sequence[str], pools: Pools
) -> AsyncGenerator[bytes, None]:
    """What `body` says, in pieces, with its `encodings` undone, and what it was kept in.

    Raises `InvalidData` where that is damaged, `TooLong` beyond `MAX_LOG_BYTES`. Whoever stops
    early closes the generator; the caller closes `body`.
    """
    decoding = _Decoding(encodings)
    length = 0
    async for data in body:
        decoded = decoding.feed(data)
        more = True
        while more:
            piece, more = await pools.cpu.run(_slice, decoded)
            length += len(piece)
            if length > MAX_LOG_BYTES:
                raise TooLong(f"a log has at most {MAX_LOG_BYTES} bytes here")
            if piece:
                yield piece
    rest, _ = await pools.cpu.run(_slice, decoding.finish())
    if rest:
        yield rest


def _slice(decoded: Iterator[bytes]) -> tuple[bytes, bool]:
    """In a thread: the next bytes, and whether there may be more."""
    pieces: list[bytes] = []
    amount = 0
    for piece in decoded:
        pieces.append(piece)
        amount += len(piece)
        if amount >= _SLICE:
            return b"".join(pieces), True
    return b"".join(pieces), False


class _Decoding:
    """Undoes the content codings, and then whatever the first bytes tell."""

    def __init__(self, encodings: Sequence[str]) -> None:
        try:
            self._transfer = decoder("none", encodings)
        except Unsupported as error:
            raise InvalidData(f"Content-Encoding: {error}") from error
        self._head = b""
        self._text: Decoder | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            for part in self._transfer.feed(data):
                if self._text is not None:
                    yield from self._text.feed(part)
                    continue
                self._head += part
                if len(self._head) >= SNIFFED:
                    yield from self._begin()
        except CorruptData as error:
            raise InvalidData(f"its compression is damaged: {error}") from error

    def finish(self) -> Iterator[bytes]:
        try:
            self._transfer.finish()
            if self._text is None:
                yield from self._begin()
            assert self._text is not None
            self._text.finish()
        except CorruptData as error:
            raise InvalidData(f"its compression is damaged: {error}") from error

    def _begin(self) -> Iterator[bytes]:
        try:
            compression = sniff(self._head, "")
        except InvalidData:
            compression = "none"
        self._text = decoder(compression if compression in _TELLING else "none")
        head, self._head = self._head, b""
        yield from self._text.feed(head)
