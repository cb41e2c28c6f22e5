"""What it costs that requests can be explained afterwards: `python -m bench.tracing`.

A warm narinfo over one loopback connection, client and server in one process, with and without
traces in turns. What counts is the difference of the best rounds; the client's share is in both.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from time import process_time
from typing import Any

import uvloop

from tests.support.caches import make_path
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import SymlinkNode
from tvixstore.directory import MemoryDirectoryService
from tvixstore.explain import Explanations
from tvixstore.http import HttpFront, serve
from tvixstore.kv import MemoryKeyValue
from tvixstore.metrics import Metrics
from tvixstore.pathinfo import LocalPathInfoService, MemoryPathInfoService, PathInfo
from tvixstore.pathinfo.cached import CachedPathInfoService
from tvixstore.pathinfo.metered import MeteredPathInfoService
from tvixstore.pathinfo.nix.substituter import describe
from tvixstore.policy.tracing import Label
from tvixstore.tree import Content

_REQUESTS = 2000
_ROUNDS = 40


class _Silent(Explanations):
    def begin(self, *_: Any) -> None:
        return None

    def end(self, *_: Any) -> None:
        return None


async def _measure(rounds: int) -> dict[str, float]:
    metrics = Metrics()
    near = LocalPathInfoService(MemoryKeyValue())
    local = MeteredPathInfoService(
        near, metrics.node("pathinfo", "local"), label=Label("local", "local")
    )
    far = MemoryPathInfoService()
    root = CachedPathInfoService(local, far)
    served = MeteredPathInfoService(
        root, metrics.node("pathinfo", "root"), label=Label("root", "cache"), on_top=True
    )
    path = make_path("hello", None)
    await near.put(PathInfo.of(describe(path.narinfo), SymlinkNode(b"x")))
    content = Content(MemoryBlobService(), MemoryDirectoryService())
    front = HttpFront(served, content, metrics)
    server = await serve(front, "127.0.0.1:0", 1.0)
    host, _, port = server.addresses[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = f"GET {path.narinfo_target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

    async def ask(times: int) -> float:
        began = process_time()
        for _ in range(times):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            await reader.readexactly(length)
        return (process_time() - began) / times

    variants = {"without": _Silent(), "with": Explanations()}
    best = dict.fromkeys(variants, float("inf"))
    gc.freeze()
    for _ in range(rounds):
        for name, explanations in variants.items():
            front.explanations = explanations
            best[name] = min(best[name], await ask(_REQUESTS))
    writer.close()
    await server.aclose()
    return best


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        best = runner.run(_measure(rounds))
    for name, seconds in best.items():
        print(f"{name:>8}: {seconds * 1e6:.2f} µs a request, client and server")
    print(f"    more: {(best['with'] - best['without']) * 1e6:.2f} µs")


if __name__ == "__main__":
    main()
