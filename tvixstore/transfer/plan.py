"""What is to be copied: the closure of what is wanted, references first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tvixstore.errors import AbsentPath, CorruptData
from tvixstore.parallel import in_parallel
from tvixstore.pathinfo import Description, PathInfoService
from tvixstore.transfer.wanted import Wanted

# Paths that the source is asked of at a time.
AT_ONCE: Final = 32


async def plan(
    source: PathInfoService, name: str, wanted: Sequence[Wanted], *, recursive: bool = True
) -> list[Description]:
    """What the source called `name` says of the paths, and of all that they refer to.

    Raises `AbsentPath`, a line a path.
    """
    found: dict[bytes, Description] = {}
    asked = {each.hash for each in wanted}
    absent: list[str] = []

    async def look(each: Wanted) -> None:
        description = await source.describe(each.hash, each.nar_sha256)
        if description is None:
            absent.append(_absent(each, name))
        else:
            found[each.hash] = description

    level: Sequence[Wanted] = wanted
    while level:
        await in_parallel(look, level, AT_ONCE)
        if absent:
            raise AbsentPath("\n".join(sorted(absent)))
        named = {
            reference.hash: Wanted(reference.hash, f"{reference}, which {each.store_path} needs,")
            for each in [found[one.hash] for one in level]
            for reference in each.references
            if recursive and reference.hash not in asked
        }
        asked.update(named)
        level = list(named.values())
    return list(references_first(found))


def _absent(wanted: Wanted, name: str) -> str:
    if wanted.nar_sha256 is None:
        return f"{wanted.name} is not in {name}"
    return f"{wanted.name} is not in {name} with the NAR hash that the list says"


def references_first(found: Mapping[bytes, Description]) -> Iterator[Description]:
    """All of `found`, each once, after those of them that it refers to.

    Raises `CorruptData` where paths refer to each other in a circle.
    """
    done: set[bytes] = set()
    entered: set[bytes] = set()
    for start in found:
        stack = [start]
        while stack:
            path_hash = stack[-1]
            if path_hash in done:
                stack.pop()
                continue
            description = found[path_hash]
            left = [
                reference.hash
                for reference in description.references
                if reference.hash != path_hash
                and reference.hash in found
                and reference.hash not in done
            ]
            if not left:
                stack.pop()
                done.add(path_hash)
                yield description
                continue
            if path_hash in entered:
                raise CorruptData(f"{description.store_path} refers to itself by way of others")
            entered.add(path_hash)
            stack += left
