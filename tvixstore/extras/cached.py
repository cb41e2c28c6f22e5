"""Extras that are kept: what `near` lacks comes from `far`, and stays.

The whole of it is fetched before anybody gets a byte: these are small, and a log that broke off
must not look like one that is over.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from tvixstore.errors import StoreError
from tvixstore.extras.documents import link_of
from tvixstore.extras.hashed import HashedFile
from tvixstore.extras.local import LocalExtras
from tvixstore.extras.names import ExtraName, Kind
from tvixstore.extras.service import ExtrasService, Found
from tvixstore.extras.substituted import SubstitutedExtras
from tvixstore.log import Logger
from tvixstore.pathinfo.uploads import hash_in
from tvixstore.policy.outage import Outage
from tvixstore.policy.single_flight import SingleFlight
from tvixstore.streams import ByteStream

_log = Logger(__name__)

# A file of the cache that the document came from.
_ARCHIVE = re.compile(r"\.\./nar/([^/?#]+)")


@dataclass(eq=False)
class CachedExtras(ExtrasService):
    """`near` in front of `far`. Whoever built it closes it: fetches under way belong to it."""

    near: LocalExtras
    far: SubstitutedExtras
    _fetching: SingleFlight[str, bool] = field(default_factory=SingleFlight, init=False, repr=False)
    _keeping: Outage = field(
        default_factory=lambda: Outage(_log, "extras.not_kept", "extras.kept"),
        init=False,
        repr=False,
    )

    async def find(self, name: ExtraName) -> Found | None:
        found = await self.near.find(name)
        if found is not None:
            return found
        if not await self._fetching.run(name.path, lambda: self._fetch(name)):
            return None
        # Kept, mostly; while nothing can be kept it is fetched again for each who asks.
        return await self.near.find(name) or Found(None, partial(self.far.open, name))

    async def put_document(self, name: ExtraName, data: bytes) -> None:
        await self.near.put_document(name, data)
        self.far.forget(name)

    async def put_log(self, name: ExtraName, text: AsyncIterable[bytes]) -> None:
        await self.near.put_log(name, text)
        self.far.forget(name)

    async def open_linked(self, file: str) -> ByteStream | None:
        """A NAR by its file's name, from far, if debug information that came from there is in it.

        Its last bytes come only once all of it hashes to the name.
        """
        digest = hash_in(file)
        if digest is None or not await self.near.has_link(file):
            return None
        body = await self.far.open_file(f"nar/{file}")
        return None if body is None else HashedFile(body, digest)

    async def aclose(self) -> None:
        """Ends the fetches under way."""
        await self._fetching.aclose()

    async def _fetch(self, name: ExtraName) -> bool:
        """Keeps what far has; whether it has anything."""
        stream = await self.far.open(name)
        if stream is None:
            return False
        checked = _Watched(stream)
        try:
            async with aclosing(checked):
                if name.kind is Kind.LOG:
                    await self.near.put_log(name, checked)
                else:
                    data = await checked.read_all()
                    await self.near.put_document(name, data)
                    await self._link(name, data)
        except (StoreError, OSError) as error:
            if checked.broke:
                raise
            self._keeping.failed(error)
        else:
            self._keeping.over()
        return True

    async def _link(self, name: ExtraName, data: bytes) -> None:
        """Remembers where the NAR is that debug information from far lies in."""
        if name.kind is Kind.DEBUG_INFO:
            match = _ARCHIVE.fullmatch(link_of(data))
            if match is not None and hash_in(match[1]) is not None:
                await self.near.add_link(match[1])


class _Watched(ByteStream):
    """Tells whether it was the stream that failed, or whoever took it."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.broke = False

    async def __anext__(self) -> bytes:
        try:
            return await self._stream.__anext__()
        except (StoreError, OSError):
            self.broke = True
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()
