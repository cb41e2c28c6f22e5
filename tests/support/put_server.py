"""A binary cache over HTTP that can be written to, and that says no when it is told to.

async with PutServer(folder) as server:
    server.refuse("PUT", "/x.narinfo", Refusal(503, {"Retry-After": "0"}), times=2)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    # Without reading what comes, and with the connection broken behind it.
    rudely: bool = False


class PutServer:
    """Keeps what is put in files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        # Method and path of each request, as they came.
        self.log: list[tuple[str, str]] = []
        self.authorizations: set[str | None] = set()
        self._refusals: dict[tuple[str, str], list[Refusal]] = {}
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{name:.+}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True)

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def refuse(self, method: str, start: str, refusal: Refusal, times: int = 1) -> None:
        """Answers the next requests whose path begins so."""
        self._refusals[method, start] = [refusal] * times

    def asked(self, method: str) -> list[str]:
        return [path for how, path in self.log if how == method]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.log.append((request.method, request.path))
        self.authorizations.add(request.headers.get("Authorization"))
        for (method, start), left in self._refusals.items():
            if method == request.method and request.path.startswith(start) and left:
                return await self._refuse(request, left.pop())
        file = self.folder / request.match_info["name"]
        if request.method == "PUT":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(await request.read())
            return web.Response(status=201)
        if not file.is_file():
            return web.Response(status=404)
        return web.Response(body=file.read_bytes())

    async def _refuse(self, request: web.Request, refusal: Refusal) -> web.Response:
        if not refusal.rudely:
            await request.read()
        else:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=refusal.status, headers=refusal.headers)
