"""Insight: what is asked of this daemon about itself."""

from __future__ import annotations

from dataclasses import dataclass

from tvixstore.explain import Explanations
from tvixstore.nix import nixbase32
from tvixstore.pathinfo import PathInfoService
from tvixstore.rpc.insight_messages import Explain
from tvixstore.rpc.server.refusals import absent


@dataclass(eq=False, slots=True)
class InsightHandlers:
    explanations: Explanations
    # Whom a dry run asks.
    path_infos: PathInfoService

    async def explain(self, request: Explain) -> str:
        text = await self.explanations.text(
            request.path_hash, self.path_infos, dry_run=request.dry_run
        )
        if text is None:
            raise absent(f"a request for path {nixbase32.encode(request.path_hash)}")
        return text
