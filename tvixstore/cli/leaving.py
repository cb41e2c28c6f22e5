"""What every run of an event loop has in common: which loop it is, and how the process ends."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from tvixstore.pools import THREAD_PREFIX


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes event loops: uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def leave(code: int) -> NoReturn:
    """Ends the process, even if a name server or a dead mount still holds one of its threads.

    By now the state is closed, and nothing that such a thread could bring is wanted. Python would
    wait for it; whoever stops the daemon would wait as well, and kill it in the end.
    """
    if any(thread.name.startswith(THREAD_PREFIX) for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)
    raise SystemExit(code)
