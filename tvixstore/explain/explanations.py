"""What a daemon can tell of its answers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from tvixstore.errors import Skipped, StoreError
from tvixstore.explain.document import document_of
from tvixstore.explain.requests import Recent, Request, RequestKind
from tvixstore.nix import nixbase32
from tvixstore.pathinfo import PathInfoService
from tvixstore.policy import tracing
from tvixstore.policy.tracing import MOST, outcome_of


@dataclass(eq=False)
class Explanations:
    """Of the last request for each path: lookups, and NARs. Nobody needs to close it."""

    lookups: Recent = field(default_factory=Recent)
    nars: Recent = field(default_factory=Recent)

    def begin_for(
        self, kind: RequestKind | None, wanted: object, front: str, what: str
    ) -> Request | None:
        """Begins a request for `wanted`, which is the hash of a path or has one as `path_hash`.

        `None` if it is of no `kind` that is told of, or about no path.
        """
        if kind is None:
            return None
        path_hash = wanted if isinstance(wanted, bytes) else getattr(wanted, "path_hash", None)
        return None if path_hash is None else self.begin(kind, path_hash, front, what)

    def begin(self, kind: RequestKind, path_hash: bytes, front: str, what: str) -> Request:
        """A request begins, which this task serves until it `leave`s or `end`s it.

        It can be told of at once, also while it hangs.
        """
        request = Request(kind, path_hash, front, what)
        self._table(kind).add(request)
        request.begin()
        return request

    def end(
        self,
        request: Request,
        status: int | str,
        outcome: str,
        reason: str | None = None,
        size: int = 0,
    ) -> None:
        """It was answered like that, with so many bytes; what is still done for it counts no more.

        May be called from elsewhere than `begin`, where the task has left it before.
        """
        request.leave()
        trace = request.step.trace
        request.ended = trace.clock()
        trace.is_open = False
        request.status = status
        request.outcome = outcome
        request.reason = None if reason is None else tracing.bounded_text(reason)
        request.bytes = size
        self._table(request.kind).weigh(request, 1 + MOST - trace.left)

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

    def _table(self, kind: RequestKind) -> Recent:
        return self.lookups if kind == "lookup" else self.nars


async def _dry_run(path_hash: bytes, path_infos: PathInfoService) -> Request:
    """A lookup that nobody waits for but who wants to know how it goes."""
    request = Request("lookup", path_hash, "dry-run", "describe")
    trace = request.step.trace
    outcome, reason = "absent", None
    request.begin()
    try:
        if (found := await path_infos.describe(path_hash)) is not None:
            outcome = "present"
            trace.path = found.store_path
    except asyncio.CancelledError:
        raise
    except Skipped as error:
        outcome, reason = "skipped" if error.answered else "unknown", str(error)
    except StoreError as error:
        outcome, reason = outcome_of(error), str(error) or type(error).__name__
    finally:
        request.leave()
        request.ended = trace.clock()
        trace.is_open = False
    request.outcome, request.reason = outcome, reason
    return request
