"""A closure whose root has come: from there on it is a stream, which is not begun again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from tvixstore.castore import Digest, Directory
from tvixstore.directory.service import DirectoryService


@dataclass(frozen=True, slots=True)
class BegunClosure:
    """`root`, and what `rest` still brings; whoever has it closes it."""

    root: Directory
    rest: AsyncGenerator[Directory, None]

    async def aclose(self) -> None:
        await self.rest.aclose()


async def begin(directories: DirectoryService, root: Digest) -> BegunClosure | None:
    """The closure once its root is there, or `None` if it is absent."""
    closure = directories.get_closure(root)
    try:
        first = await anext(closure, None)
    except BaseException:
        await closure.aclose()
        raise
    if first is None:
        await closure.aclose()
        return None
    return BegunClosure(first, closure)


async def nothing_more() -> AsyncGenerator[Directory, None]:
    """The rest where there is none to be had."""
    for directory in list[Directory]():
        yield directory


async def all_of(
    beginning: Callable[[], Awaitable[BegunClosure | None]],
) -> AsyncGenerator[Directory, None]:
    """All of the closure that `beginning` gives, which is closed whenever this ends."""
    begun = await beginning()
    if begun is None:
        return
    try:
        yield begun.root
        async for directory in begun.rest:
            yield directory
    finally:
        await begun.aclose()
