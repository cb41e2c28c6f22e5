"""Copying store paths: content as it can be had, path infos in an order that leaves no gap.

Content of several paths is on its way at a time. A path is shown in the target only after all that
it refers to, so that whatever breaks the copy off, the target has whole closures, and copying again
goes on where it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tvixstore.parallel import first_of, in_parallel
from tvixstore.pathinfo import Description
from tvixstore.transfer.plan import AT_ONCE, plan
from tvixstore.transfer.target import Publish, Source, Target
from tvixstore.transfer.wanted import Wanted
from tvixstore.transfer.watcher import Meter, Report, Watcher


@dataclass(eq=False)
class Copy:
    """One copy of paths from `source` to `target`, the content of `jobs` paths at a time."""

    source: Source
    target: Target
    jobs: int = 4
    watcher: Watcher = field(default_factory=Watcher)
    report: Report = field(default_factory=Report)
    # By path, whether it can be seen in the target; only of those that could not before.
    _shown: dict[bytes, asyncio.Event] = field(default_factory=dict, init=False)

    async def run(self, wanted: Sequence[Wanted], *, recursive: bool = True) -> Report:
        """Copies what is `wanted`, and all that it refers to if `recursive`.

        Raises `AbsentPath` before anything is copied; other errors when they are met. What was
        done by then is in `report`, and stays.
        """
        planned = await plan(self.source.path_infos, self.source.name, wanted, recursive=recursive)
        self.watcher.planned(len(planned), sum(each.nar_size for each in planned))
        missing = await self._skip(planned)
        self._shown = {each.store_path.hash: asyncio.Event() for each in missing}
        publishing = asyncio.Semaphore(self.jobs)
        left = iter(missing)
        try:
            async with asyncio.TaskGroup() as group:

                async def work() -> None:
                    for each in left:
                        publish = await self._bring(each)
                        # Waits for others, and would keep this one from going on.
                        group.create_task(self._publish(each, publish, publishing))

                for _ in range(self.jobs):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise first_of(errors) from None
        return self.report

    async def _skip(self, planned: Sequence[Description]) -> list[Description]:
        """Leaves out what the target has; the rest, in the same order."""
        there: dict[bytes, Description] = {}

        async def look(each: Description) -> None:
            if (found := await self.target.find(each.store_path.hash)) is not None:
                there[each.store_path.hash] = found

        await in_parallel(look, planned, AT_ONCE)
        missing = []
        for each in planned:
            found = there.get(each.store_path.hash)
            if found is None:
                missing.append(each)
                continue
            if not found.same_nar(each):
                self.watcher.differs(each, found)
            self.report.paths.append((each, "skipped"))
            self.watcher.done(each, "skipped")
        return missing

    async def _bring(self, description: Description) -> Publish:
        self.watcher.began(description)
        meter = Meter(description, self.report, self.watcher)
        return await self.target.bring(description, self.source, meter)

    async def _publish(
        self, description: Description, publish: Publish, turns: asyncio.Semaphore
    ) -> None:
        # Each of them was begun before this one, so they do come, or end us all.
        for reference in description.references:
            shown = self._shown.get(reference.hash)
            if shown is not None and reference != description.store_path:
                await shown.wait()
        async with turns:
            await publish()
        self._shown[description.store_path.hash].set()
        self.report.paths.append((description, "copied"))
        self.watcher.done(description, "copied")
