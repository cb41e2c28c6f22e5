"""What a daemon can tell of its answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from tvixstore.errors import Skipped, StoreError
from tvixstore.explain.document import document_of
from tvixstore.explain.requests import Recent, Request, RequestKind
from tvixstore.nix import nixbase32
from tvixstore.pathinfo import PathInfoService
from tvixstore.policy import tracing
from tvixstore.policy.tracing import Label, bounded_text, clock

_DRY_RUN: Final = Label("dry-run", "request")


@dataclass(eq=False)
class Explanations:
    """Of the last request for each path: lookups, and NARs. Nobody needs to close it."""

    lookups: Recent = field(default_factory=Recent)
    nars: Recent = field(default_factory=Recent)

    def begin(self, kind: RequestKind, request: Request) -> None:
        """This task begins to serve `request`, which can be told of at once, also while it hangs.

        It stays what is being done until the next one begins: nothing is told of a request that
        is over.
        """
        (self.lookups if kind == "lookup" else self.nars).add(request)
        tracing.begin(request)

    def end(self, request: Request, ended: float) -> None:
        """It was answered; nothing more is told of what is done for it."""
        request.ended = ended
        # Its connection may go on to a request that is not told of.
        request.takes_hit = False
        if request.reason is not None:
            request.reason = bounded_text(request.reason)
        if request.trace is not None:
            request.trace.is_open = False
            self.lookups.weigh(request)
            self.nars.weigh(request)

    async def document(
        self, path_hash: bytes, path_infos: PathInfoService, *, dry_run: bool = False
    ) -> dict[str, Any] | None:
        """All there is to tell of a path; `None` if it was not asked for lately, nor is now.

        A dry run looks it up in `path_infos`, as a request would; content is not fetched.
        """
        run = await _dry_run(path_hash, path_infos) if dry_run else None
        lookup, nar = self.lookups.get(path_hash), self.nars.get(path_hash)
        if lookup is None and nar is None and run is None:
            return None
        return document_of(nixbase32.encode(path_hash), lookup, nar, run)

    async def text(
        self, path_hash: bytes, path_infos: PathInfoService, *, dry_run: bool = False
    ) -> str | None:
        """The document as JSON."""
        document = await self.document(path_hash, path_infos, dry_run=dry_run)
        return None if document is None else json.dumps(document, ensure_ascii=False)


def found(path: object) -> None:
    """The store path that the request which this task serves is about."""
    request = tracing.here()
    # One that is over is another one, which came before on the same connection.
    if request is not None and request.ended is None:
        request.path = path


def path_hash_of(wanted: object) -> bytes | None:
    """The hash of the path that a request is about: it is one, or it has one."""
    return wanted if isinstance(wanted, bytes) else getattr(wanted, "path_hash", None)


async def _dry_run(path_hash: bytes, path_infos: PathInfoService) -> Request:
    """A lookup that nobody waits for but who wants to know how it goes."""
    request = Request(_DRY_RUN, "describe", clock())
    token = tracing.begin(request)
    try:
        description = await path_infos.describe(path_hash)
        request.end("absent" if description is None else "present")
        request.path = None if description is None else description.store_path
    except StoreError as error:
        request.fail(error)
        if isinstance(error, Skipped) and error.answered:
            request.outcome = "skipped"
    finally:
        tracing.over(token)
        request.opened().is_open = False
    return request
