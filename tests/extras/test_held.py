"""What comes slowly, in a store that frees what nobody needs."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from tests.evict.stores import open_store
from tests.extras.test_documents import DRV
from tests.nar.trees import File
from tvixstore.extras import ExtraName, LocalExtras
from tvixstore.kv.holds import GENERATION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOG = ExtraName.log(DRV)
# Several slices of a blob's writer, so that it has found the first before the end comes.
TEXT = random.Random(4).randbytes(6 << 20)


async def test_a_log_that_comes_slowly_keeps_what_it_has_in_common_with_others(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path / "state") as store:
        extras = LocalExtras(store.engine.table("extras"), store.content, store.references)
        await store.add("path", File(TEXT))
        later = 0.0
        store.holds._now = lambda: time.monotonic() + later

        async def slowly() -> AsyncIterator[bytes]:
            nonlocal later
            yield TEXT
            yield b"x"
            for _ in range(3):
                later += GENERATION
                store.holds.turn()
            assert await store.evict("path") == 1
            yield b"y"

        await extras.put_log(LOG, slowly())
        found = await extras.find(LOG)
        assert found is not None
        stream = await found.open()
        assert stream is not None
        assert await stream.read_all() == TEXT + b"xy"
        assert await store.problems() == []
