"""What a test must not leave behind: tasks, generators, threads, files, sockets.

`Snapshot` compares what the process holds before and after; `LoopWatch` asks one event loop, just
before it is closed (closing would cancel what was left, and hide it). Coroutines that were never
awaited need nothing here: Python warns of them, and warnings are errors.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

# Seconds that threads get to come home: a pool that was told to stop may be a moment away from it.
_GRACE = 2.0


class Leak(AssertionError):
    """A test left something behind; the message lists it, a line each."""


def fail_on(left: Iterable[str]) -> None:
    """Raises `Leak` if there is anything in `left`."""
    lines = list(left)
    if lines:
        raise Leak("left behind:\n" + "\n".join(f"  {line}" for line in lines))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The threads and the open files and sockets of this process at one moment."""

    threads: frozenset[threading.Thread]
    files: frozenset[str]

    @classmethod
    def take(cls) -> Snapshot:
        return cls(frozenset(threading.enumerate()), frozenset(_open_files()))

    def new_threads(self) -> list[str]:
        """The threads started since, and not over within a moment of grace."""
        until = monotonic() + _GRACE
        left = []
        for thread in threading.enumerate():
            if thread not in self.threads:
                thread.join(max(0.0, until - monotonic()))
                if thread.is_alive():
                    left.append(f"thread {thread.name!r}")
        return left

    def new_files(self) -> list[str]:
        """The files, pipes and sockets opened since, as `<descriptor> -> <what it is>`, and not
        closed within a moment of grace: obstore does that in threads of its own."""
        until = monotonic() + _GRACE
        while left := [f"file {file}" for file in _open_files() if file not in self.files]:
            if monotonic() > until:
                break
            sleep(0.01)
        return left


def _open_files() -> Iterable[str]:
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            # The descriptor of this very listing.
            continue
        yield f"{descriptor} -> {target}"


class LoopWatch:
    """Watches an event loop for tasks, generators and exceptions that nobody took care of."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._noted: list[str] = []
        if isinstance(loop, asyncio.BaseEventLoop):
            self._watch_generators(loop)
        loop.set_exception_handler(self._on_exception)

    def left(self) -> list[str]:
        """What is left right now. Ask before the loop is closed."""
        tasks = [f"task {task!r}" for task in asyncio.all_tasks(self._loop)]
        generators = [
            f"async generator {generator.__qualname__!r}, suspended"
            for generator in getattr(self._loop, "_asyncgens", ())
            if generator.ag_frame is not None
        ]
        return [*tasks, *generators, *self._noted]

    def _watch_generators(self, loop: Any) -> None:
        finalize = loop._asyncgen_finalizer_hook

        def note_and_finalize(generator: Any) -> None:
            # Garbage, and not closed by whoever stopped reading.
            self._noted.append(f"async generator {generator.__qualname__!r}, dropped unclosed")
            finalize(generator)

        loop._asyncgen_finalizer_hook = note_and_finalize

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message = context["message"]
        if message.endswith("never retrieved"):
            self._noted.append(f"{message}: {context.get('exception')!r}")
        loop.default_exception_handler(context)
