"""`tvix-store top`: what a daemon is doing, live on a terminal, as text or JSON elsewhere."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tvixstore.cli.app import ComposeOption
from tvixstore.cli.keeping import CaFileOption
from tvixstore.errors import CorruptData, InvalidData, Unavailable

if TYPE_CHECKING:
    from tvixstore.cli.places import DaemonPlace
    from tvixstore.cli.top_view import Snapshot
    from tvixstore.rpc.client import Peer

# Seconds until a daemon that went away is asked again.
_AGAIN: Final = 1.0
_GONE: Final = "the daemon has ended"


def top(
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="URL",
            help="The daemon: grpc+http(s)://HOST:PORT or grpc+unix:///PATH. Left out: the one "
            "that runs on the compose file.",
            show_default=False,
        ),
    ] = None,
    compose: ComposeOption = None,
    interval: Annotated[
        float, typer.Option(min=0.2, max=20.0, help="Seconds from one look to the next.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, a line a look.")] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="A token with the right `read`, if the daemon wants one.",
            show_default=False,
        ),
    ] = None,
    ca_file: CaFileOption = None,
) -> None:
    """Watch what a daemon is fetching, for whom, and how fast; `q` ends it."""
    if source is not None and compose is not None:
        raise typer.BadParameter("--from and --compose both say which daemon: name one")
    from tvixstore.cli.clients import Credentials, open_client
    from tvixstore.cli.running import run

    place = _place(source, compose)

    async def work() -> int:
        async with open_client(place, Credentials(token_file, None, ca_file)) as client:
            assert client.peer is not None
            looking = _Looking(client.peer, str(place), interval)
            if once or as_json or not sys.stdout.isatty():
                await looking.tell(once=once, as_json=as_json)
            else:
                await looking.show()
        return 0

    run(work)


def _place(source: str | None, compose: Path | None) -> DaemonPlace:
    from tvixstore.cli.find import find, load
    from tvixstore.cli.places import DaemonPlace, daemon_url, parse_place

    if source is None:
        return DaemonPlace(daemon_url(load(find(compose))))
    place = parse_place(source)
    if not isinstance(place, DaemonPlace):
        raise typer.BadParameter("--from names a daemon: grpc+http(s)://… or grpc+unix:///PATH")
    return place


@dataclass
class _Looking:
    """One run of the command."""

    peer: Peer
    place: str
    interval: float
    # What was seen last, and what is wrong now.
    seen: Snapshot | None = field(default=None, init=False)
    trouble: str | None = field(default=None, init=False)

    async def tell(self, *, once: bool, as_json: bool) -> None:
        """Writes each look to standard output; the daemon's end is the end."""
        from tvixstore.cli.top_view import lines

        async with aclosing(self._documents()) as documents:
            async for document in documents:
                text = _json(document) if as_json else lines(self.place, self._read(document))
                for line in [text] if isinstance(text, str) else text:
                    typer.echo(line)
                sys.stdout.flush()
                if once:
                    return
        raise Unavailable(f"{self.place}: {_GONE}")

    async def show(self) -> None:
        """Fills the terminal, until `q`; a daemon that went away may come back."""
        from rich.console import Console
        from rich.live import Live

        console = Console()
        with Live(console=console, screen=True, auto_refresh=False) as live, _keys() as quitting:

            def draw() -> None:
                from tvixstore.cli.top_view import screen

                width, height = console.size
                live.update(
                    screen(self.place, self.seen, self.trouble, width, height), refresh=True
                )

            with _on_resize(draw):
                draw()
                looking = asyncio.create_task(self._keep_looking(draw), name="look")
                quit_asked = asyncio.create_task(quitting.wait(), name="wait for q")
                try:
                    await asyncio.wait([looking, quit_asked], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    from tvixstore.policy.tasks import end

                    await end([looking, quit_asked])
        if not looking.cancelled():
            looking.result()

    async def _keep_looking(self, draw: Any) -> None:
        while True:
            try:
                async with aclosing(self._documents()) as documents:
                    async for document in documents:
                        self.seen, self.trouble = self._read(document), None
                        draw()
                self.trouble = f"{_GONE}; waiting for it"
            except Unavailable as error:
                from tvixstore.log import redact

                self.trouble = f"{redact(str(error))}; trying again"
            draw()
            await asyncio.sleep(_AGAIN)

    def _documents(self) -> AsyncGenerator[dict[str, Any], None]:
        from tvixstore.rpc.client import watch

        return watch(self.peer, self.interval)

    def _read(self, document: dict[str, Any]) -> Snapshot:
        from tvixstore.cli.top_view import read_snapshot

        try:
            return read_snapshot(document)
        except InvalidData as error:
            raise CorruptData(f"{self.place}: what it sent {error}") from error


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False)


@contextmanager
def _keys() -> Iterator[asyncio.Event]:
    """What is set once `q` is pressed; keys are neither shown nor gathered into lines inside."""
    asked = asyncio.Event()
    if not sys.stdin.isatty():
        yield asked
        return
    import os
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        # Nothing at all is the end of the terminal.
        if (keys := os.read(number, 64)) == b"" or b"q" in keys.lower():
            asked.set()
            loop.remove_reader(number)

    tty.setcbreak(number)
    loop.add_reader(number, pressed)
    try:
        yield asked
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)


@contextmanager
def _on_resize(draw: Any) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, draw)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
