"""What racing and falling back have in common: members, of which one won a path.

The NAR of a path comes from the member whose description was taken, or from another with the very
same NAR, which also goes on where it breaks off. A member whose stream broke is asked last for that
path for a while, so that a client that resumes comes to another one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from tvixstore.errors import ReadOnly, StorageFull, Unavailable, Unsupported
from tvixstore.log import Logger
from tvixstore.nix import nixbase32
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.relay import NarMember, NarRelay, hashed_above, is_hashed_above
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.policy.elsewhere import is_elsewhere
from tvixstore.policy.ttl import TtlMap
from tvixstore.policy.verdict import Verdict
from tvixstore.streams import ByteStream

# Paths and seconds for which a winner, or a member set back, is remembered.
_PATHS = 20_000
_WINNER_TTL = 3600.0
_SET_BACK = 300.0

log = Logger("tvixstore.pathinfo.members")


@dataclass(eq=False)
class PathInfoMembers(PathInfoService):
    """Several services that are asked for the same paths; `names` are theirs in logs and errors."""

    members: Sequence[PathInfoService]
    names: Sequence[str]
    _winners: TtlMap[bytes, int] = field(
        default_factory=lambda: TtlMap(_PATHS), init=False, repr=False
    )
    # For (path, member): the number of its latest failure among all.
    _set_back: TtlMap[tuple[bytes, int], int] = field(
        default_factory=lambda: TtlMap(_PATHS), init=False, repr=False
    )
    _failures: int = field(default=0, init=False, repr=False)

    def won(self, path_hash: bytes, index: int) -> None:
        """Remembers whose description of the path was taken."""
        self._winners.put(path_hash, index, _WINNER_TTL)

    async def get(self, path_hash: bytes) -> PathInfo | None:
        description = await self.describe(path_hash)
        if description is None:
            return None
        asked = _Asked(self._in_turn(path_hash))
        index = self._winners.get(path_hash)
        winner = None if index is None else self.members[index]
        while asked.left:
            member = asked.left.pop(0)
            try:
                if member.service is not winner and not await _has_nar(member.service, description):
                    asked.verdict.absent()
                    continue
                info = await member.get(path_hash, others=asked.others)
            except StorageFull:
                # That is our own store, which has no more room for what another member has.
                raise
            except Exception as error:
                asked.failed(member, error)
                continue
            if info is None:
                asked.verdict.absent()
            elif info.same_nar(description):
                return info
            else:
                text = "it now has another NAR than it described"
                asked.verdict.failed(member.name, Unavailable(text))
        asked.conclude()
        # Nobody has that NAR. The path itself is absent only if nobody has it with another one.
        now = await self.describe(path_hash)
        if now is not None and not now.same_nar(description):
            raise Unavailable("the NAR that was described is gone; by now there is another NAR")
        return None

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        path_hash = description.store_path.hash
        asked = _Asked(self._in_turn(path_hash))
        hashed = is_hashed_above() and length is None
        whole = not offset and length is None
        while asked.left:
            member = asked.left.pop(0)
            try:
                with hashed_above(hashed or (whole and bool(asked.left))):
                    stream = await member.open_nar(
                        description, offset, length, into, others=asked.others
                    )
            except Exception as error:
                asked.failed(member, error)
                continue
            if stream is not None:
                return NarRelay(description, member, stream, asked.left, into, offset, length)
            asked.verdict.absent()
        asked.conclude()
        return None

    async def put(self, info: PathInfo) -> PathInfo:
        for member in self.members:
            try:
                return await member.put(info)
            except ReadOnly:
                continue
        raise ReadOnly(f"none of {', '.join(self.names)} takes writes")

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        seen: set[bytes] = set()
        listed = False
        for member in self.members:
            try:
                async with aclosing(member.list()) as infos:
                    async for info in infos:
                        if info.store_path.hash not in seen:
                            seen.add(info.store_path.hash)
                            yield info
            except Unsupported:
                continue
            listed = True
        if not listed:
            raise Unsupported(f"none of {', '.join(self.names)} can be listed")

    def _in_turn(self, path_hash: bytes) -> Iterator[NarMember]:
        """The winner first, whoever failed last comes last."""
        winner = self._winners.get(path_hash)

        def turn(index: int) -> tuple[int, bool]:
            return self._set_back.get((path_hash, index)) or 0, index != winner

        for index in sorted(range(len(self.members)), key=turn):
            on_break = self._on_break(path_hash, index)
            yield NarMember(self.names[index], self.members[index], on_break)

    def _on_break(self, path_hash: bytes, index: int) -> Callable[[Exception], None]:
        return lambda error: self._failed(path_hash, index, error)

    def _failed(self, path_hash: bytes, index: int, error: Exception) -> None:
        self._failures += 1
        self._set_back.put((path_hash, index), self._failures, _SET_BACK)
        log.info(
            "member.set_back",
            node=self.names[index],
            key=nixbase32.encode(path_hash),
            reason=str(error) or type(error).__name__,
        )


class _Asked:
    """Members that are asked for a NAR, one after the other; `left` are those to come."""

    def __init__(self, members: Iterable[NarMember]) -> None:
        self.left = [*members]
        self.verdict = Verdict()
        self._doubt: Exception | None = None

    @property
    def others(self) -> bool:
        """Whether there is somebody else to ask, here or above."""
        return bool(self.left) or is_elsewhere()

    def failed(self, member: NarMember, error: Exception) -> None:
        member.failed(error)
        if not (again := member.once_more(error)):
            self.verdict.failed(member.name, error)
        elif is_elsewhere():
            self._doubt = error
        else:
            self.left += again

    def conclude(self) -> None:
        """Returns if all said absent, and else raises."""
        if self._doubt is not None:
            # Those above have somebody else, and come back if he does not have it.
            raise self._doubt
        self.verdict.conclude()


async def _has_nar(member: PathInfoService, description: Description) -> bool:
    """Whether `member` describes the path with the very NAR of `description`."""
    found = await member.describe(description.store_path.hash, description.nar_sha256)
    return found is not None and found.same_nar(description)
