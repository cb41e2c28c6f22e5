"""An upstream without a network: it says what it is told to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tvixstore.errors import StoreError
from tvixstore.nix import NarInfo
from tvixstore.pathinfo.nix.upstream import Body, Resume, Upstream
from tvixstore.streams import ByteStream


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One connection: the body up to `breaks_at`, then `error`; nothing before `gate` is set."""

    body: bytes
    validator: str | None = '"v1"'
    breaks_at: int | None = None
    error: StoreError | None = None
    gate: asyncio.Event | None = None
    # Where `gate` stands: so many bytes come without it.
    gate_at: int = 0
    piece: int = 64 << 10
    ignores_resume: bool = False


class FakeBody(Body):
    def __init__(self, attempt: Attempt, resume: Resume | None) -> None:
        resumes = resume is not None and not attempt.ignores_resume
        self.offset = resume.offset if resume is not None and resumes else 0
        self.length = len(attempt.body)
        self.validator = attempt.validator
        self.encodings = ()
        self.url = "fake://upstream"
        self.closed = False
        self._attempt = attempt
        self._position = self.offset

    async def __anext__(self) -> bytes:
        attempt = self._attempt
        end = len(attempt.body) if attempt.breaks_at is None else attempt.breaks_at
        if attempt.gate is not None and not attempt.gate.is_set():
            if self._position >= attempt.gate_at:
                await attempt.gate.wait()
            else:
                end = min(end, attempt.gate_at)
        part = attempt.body[self._position : min(end, self._position + attempt.piece)]
        if part:
            self._position += len(part)
            return part
        if attempt.error is not None:
            raise attempt.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


@dataclass(eq=False)
class FakeUpstream(Upstream):
    """Narinfos by path hash, NARs by URL; a NAR's last attempt stays."""

    name: str = "fake"
    narinfos: dict[bytes, str | StoreError] = field(default_factory=dict)
    nars: dict[str, list[Attempt | StoreError | None]] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)
    opened: list[tuple[str, Resume | None]] = field(default_factory=list)
    bodies: list[FakeBody] = field(default_factory=list)

    def add(self, narinfo: NarInfo, *attempts: Attempt | StoreError | None) -> None:
        self.narinfos[narinfo.store_path.hash] = str(narinfo)
        self.nars[narinfo.url] = list(attempts)

    async def narinfo(self, path_hash: bytes) -> str | None:
        self.asked.append(path_hash)
        await asyncio.sleep(0)
        answer = self.narinfos.get(path_hash)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    async def open_nar(self, url: str, resume: Resume | None = None) -> Body | None:
        self.opened.append((url, resume))
        await asyncio.sleep(0)
        attempts = self.nars[url]
        attempt = attempts.pop(0) if len(attempts) > 1 else attempts[0]
        if isinstance(attempt, StoreError):
            raise attempt
        if attempt is None:
            return None
        body = FakeBody(attempt, resume)
        self.bodies.append(body)
        return body

    async def check_store_dir(self) -> None:
        return None

    async def aclose(self) -> None:
        return None


async def drain(stream: ByteStream, amount: int) -> bytes:
    """At least `amount` bytes of `stream`, or all there are."""
    data = b""
    while len(data) < amount:
        try:
            data += await anext(stream)
        except StopAsyncIteration:
            break
    return data
