"""The real Nix client as the one who uploads: out of a workshop's store, into a cache by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.nix_client import Finished, environment, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.caches import Workshop


class Pusher:
    """Copies what the workshop has, and remembers narinfos like any other client."""

    def __init__(self, folder: Path, workshop: Workshop) -> None:
        self.store = workshop.folder / "root"
        self.key_file = workshop.folder / "key.secret"
        self._environment = environment(folder)

    async def push(
        self, url: str, *store_paths: str, check: bool = True, sign: bool = True, **settings: str
    ) -> Finished:
        """`nix copy --to` with the settings that stand in a cache's query."""
        if sign:
            settings["secret-key"] = str(self.key_file)
        query = "&".join(f"{name.replace('_', '-')}={value}" for name, value in settings.items())
        where = ("--store", str(self.store), "--to", f"{url}?{query}")
        return await self.run("nix", "copy", *where, *store_paths, check=check)

    async def run(self, *command: str, check: bool = True) -> Finished:
        """Any other command of the same client."""
        finished = await run(*command, env=self._environment)
        if check and finished.code:
            raise AssertionError(f"{' '.join(finished.command)}:\n{finished.output}")
        return finished
