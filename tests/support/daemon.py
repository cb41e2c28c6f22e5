"""`tvix-store daemon` as a process, on a free port, with its log read as it is written.

    async with Daemon(tmp_path, [substituter(upstream.url, key)]) as daemon:
        await client.copy(daemon.url, path)
        assert daemon.events("fill.failed") == []

Leaving it well stops it with SIGTERM, and demands exit code 0 and a log without a traceback.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import aiohttp

from tvixstore.nix import NarInfo

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# Seconds that anything we wait for may take on a machine that is busy.
PATIENCE = 60.0

# What the installed script does, with the Python and the package that the tests run with.
PROGRAM = "from tvixstore.cli import main; main()"

# A line of the log, in either format.
_EVENT = re.compile(r"\{|\d{4}-\d\d-\d\dT")

Value: TypeAlias = "str | int | bool | list[str]"
Section: TypeAlias = "Mapping[str, Value]"
Event: TypeAlias = "dict[str, Any]"

# What would make tests slow, or let one of them see another's.
_DAEMON: Section = {
    "http": "127.0.0.1:0",
    "grpc": "off",
    "state": "./state",
    "log_format": "json",
    "drain_timeout": "5s",
}
# Chosen so that a dead upstream is noticed in tenths of a second.
_SUBSTITUTER: Section = {
    "timeout": "1s",
    "connect_timeout": "1s",
    "stall_timeout": "1s",
    "retries": 1,
}


def substituter(url: str, key: str | None, **keys: Value) -> dict[str, Value]:
    """A `[[substituters]]` that gives up soon; without `key` it is unsigned."""
    trust: Section = {"unsigned": True} if key is None else {"public_keys": [key]}
    return {"url": url, **trust, **_SUBSTITUTER, **keys}


def compose_text(substituters: Sequence[Section], daemon: Section, store: Section) -> str:
    """A compose file. Each of our values is written in JSON as it is in TOML."""
    sections = [("[daemon]", {**_DAEMON, **daemon}), ("[store]", store)]
    sections += [("[[substituters]]", section) for section in substituters]
    lines = []
    for header, section in sections:
        lines.append(header)
        lines += [f"{key} = {json.dumps(value)}" for key, value in section.items()]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Daemon:
    """One compose file and one state directory, below `folder`, and the process on them."""

    def __init__(
        self,
        folder: Path,
        substituters: Sequence[Section] = (),
        *,
        daemon: Section | None = None,
        store: Section | None = None,
        environment: Mapping[str, str] | None = None,
        planted: str = "",
        descriptors: Sequence[int] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        """`planted` is Python that makes the daemon wrong, for tests that have to notice.

        `descriptors` are passed on to it, and `arguments` are more that it is given.
        """
        self.folder = folder
        self.state = folder / "state"
        self.compose = folder / "compose.toml"
        # Of all its lives; `url` and `pid` are of the present one.
        self.lines: list[str] = []
        self.log: list[Event] = []
        self.url = ""
        # What its certificate is checked with, if it has one.
        self.tls: ssl.SSLContext | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.compose.write_text(compose_text(substituters, daemon or {}, store or {}))
        self._program = f"{planted}\n{PROGRAM}"
        self._descriptors = descriptors
        self._arguments = arguments
        self._environment = {**_clean_environment(), **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._silent = True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if self._process is None:
            return
        if kind is None:
            await self.stop()
        else:
            await self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def start(self, **environment: str) -> None:
        """Starts it and returns when it is ready; `environment` is for this life alone."""
        begin = len(self.log)
        await self.launch(**environment)
        try:
            await self._until(lambda: any(e["event"] == "ready" for e in self.log[begin:]))
            listening = [event for event in self.log[begin:] if event["event"] == "listening"]
            assert listening, "the daemon did not come up:\n" + self.text()
        except BaseException:
            await self.kill()
            raise
        self.url = listening[0]["http"]

    async def launch(self, **environment: str) -> None:
        """Starts it without waiting for anything."""
        assert self._process is None, "it runs already"
        self._silent = False
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", self._program, "daemon", "--compose", str(self.compose)),
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**self._environment, **environment},
            pass_fds=self._descriptors,
            limit=1 << 24,
        )
        self._reading = asyncio.create_task(self._read(self._process))

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Asks it to stop, and demands that it does so well."""
        assert self._process is not None
        self._process.send_signal(number)
        code = await self.ended()
        assert code == 0, f"exit code {code}:\n{self.text()}"
        self.assert_log_is_clean()

    async def kill(self) -> int:
        """SIGKILL, whatever it is doing. Returns its exit code, should it have been faster."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        return await self.ended()

    async def ended(self) -> int:
        """Waits for its end, and returns the exit code (below 0: killed by that signal)."""
        process, reading = self._process, self._reading
        assert process is not None and reading is not None
        try:
            async with asyncio.timeout(PATIENCE):
                code = await process.wait()
                await reading
        except TimeoutError:
            process.kill()
            await process.wait()
            await reading
            raise AssertionError(f"the daemon did not end:\n{self.text()}") from None
        self._process = self._reading = None
        return code

    def assert_log_is_clean(self) -> None:
        """No traceback, nothing but events: whatever happened, it was expected to."""
        assert "Traceback" not in self.text(), self.text()
        strange = [line for line in self.lines if not _EVENT.match(line)]
        assert not strange, "\n".join(strange)

    def events(self, name: str) -> list[Event]:
        return [event for event in self.log if event["event"] == name]

    async def logged(self, name: str, **fields: object) -> Event:
        """The first event of that name with those fields, as soon as it is there."""

        def found() -> list[Event]:
            return [event for event in self.events(name) if fields.items() <= event.items()]

        await self._until(lambda: bool(found()))
        assert found(), f"no {name} in the log:\n{self.text()}"
        return found()[0]

    async def logged_again(self, name: str, times: int) -> Event:
        """The event of that name that comes after the first so many."""
        await self._until(lambda: len(self.events(name)) > times)
        assert len(self.events(name)) > times, f"no {name} in the log:\n{self.text()}"
        return self.events(name)[times]

    async def wrote(self, text: str) -> None:
        """Returns once `text` is in the log, in whatever format."""
        await self._until(lambda: text in self.text())
        assert text in self.text(), self.text()

    def text(self) -> str:
        return "\n".join(self.lines)

    async def get(self, target: str, method: str = "GET", **headers: str) -> Answer:
        """Asks it for `target`, on a connection of its own.

        Raises `aiohttp.ClientError` if the body breaks off.
        """
        async with (
            self.session() as session,
            session.request(method, target, headers=headers) as response,
        ):
            return Answer(response.status, response.headers, await response.read())

    def session(self) -> aiohttp.ClientSession:
        """For several requests, or some that are not read to their end.

        Like Nix it asks for no coding, which aiohttp would do by itself.
        """
        connector = aiohttp.TCPConnector(ssl=True if self.tls is None else self.tls)
        plain = {"Accept-Encoding": "identity"}
        return aiohttp.ClientSession(
            self.url, headers=plain, connector=connector, auto_decompress=False
        )

    async def nar_target(self, digits: str) -> str:
        """Where its narinfo of that path says that the NAR is."""
        answer = await self.get(f"/{digits}.narinfo")
        assert answer.status == 200, answer
        return f"/{NarInfo.parse(answer.body.decode()).url}"

    async def settled(self) -> None:
        """Returns once what was fetched is in the store: clients may be done before that."""
        async with asyncio.timeout(PATIENCE):
            while await self.metric("tvixstore_fills_running"):
                pass

    async def metric(self, name: str, **labels: str) -> float:
        """The value of one sample of `/metrics`, 0 if it has none yet."""
        for line in (await self.get("/metrics")).body.decode().splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(
                f'{label}="{wanted}"' in sample for label, wanted in labels.items()
            ):
                return float(value)
        return 0.0

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        try:
            while line := await process.stderr.readline():
                self._note(line.decode(errors="replace").rstrip("\n"))
                self._news.set()
        finally:
            self._silent = True
            self._news.set()

    def _note(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("{"):
            self.log.append(json.loads(line))

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Waits for log lines until `holds`, or until there are no more to come."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds() and not self._silent:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain; the log:\n{self.text()}") from None


def _clean_environment() -> dict[str, str]:
    """Ours, without what would change where the daemon goes or what it reads."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("TVIXSTORE_", "SSL_CERT_"))
    }
