"""Who we say that we are to a peer, and whom we take for it.

Files are read in a thread, the token again when it changed, the certificates for each connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

from tvixstore.errors import Unavailable
from tvixstore.pathinfo.nix import TokenFile, client_context
from tvixstore.pools import Pools

if TYPE_CHECKING:
    import ssl

# Seconds between two looks whether the token's file changed: a call takes less than a look.
_LOOK_EVERY: Final = 1.0

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Identity:
    """Of one peer, which messages call `name`. Without files: nobody, who trusts the system's
    authorities."""

    def __init__(
        self,
        name: str,
        *,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
        pools: Pools | None = None,
    ) -> None:
        self._name = name
        self._token = None if token_file is None else TokenFile(name, token_file)
        self._ca_file = ca_file
        self._client_cert = client_cert
        self._client_key = client_key
        self._pools = pools
        self._authorization: str | None = None
        self._look_at = 0.0

    async def authorization(self) -> str | None:
        """What calls carry. Raises `Unavailable` if the token cannot be read, naming its file."""
        if self._token is None:
            return None
        now = asyncio.get_running_loop().time()
        if self._authorization is None or now >= self._look_at:
            self._authorization = "Bearer " + await self._run(self._token.read)
            self._look_at = now + _LOOK_EVERY
        return self._authorization

    async def context(self) -> ssl.SSLContext:
        """What a connection is made with. Raises `Unavailable`, naming the file."""
        return await self._run(self._make_context)

    def _make_context(self) -> ssl.SSLContext:
        context = client_context(self._name, self._ca_file, "h2")
        if self._client_cert is not None:
            try:
                context.load_cert_chain(self._client_cert, self._client_key, password="")
            except OSError as error:
                reason = error.strerror or str(error)
                raise Unavailable(
                    f"{self._name}: the certificate in {self._client_cert} and its key cannot be "
                    f"used: {reason}"
                ) from error
        return context

    async def _run(
        self, function: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        if self._pools is None:
            return function(*arguments)
        return await self._pools.files.run(function, *arguments)
