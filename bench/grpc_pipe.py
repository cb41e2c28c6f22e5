"""The ceiling of a copy between two daemons: bare grpclib that moves the same messages.

    python -m bench.grpc_pipe < JOB

Reads each blob from one server of `bench.grpc_server` and puts it to another, message by message as
it comes, after asking there whether it is known; nothing is looked into, hashed or kept.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from time import perf_counter
from typing import Any

import uvloop
from grpclib.client import Channel
from grpclib.const import Cardinality

from bench.grpc_server import BytesCodec


@dataclass(slots=True)
class Job:
    """`blobs`: by the path that reads such a one, how many there are, how many at a time, and
    whether the target is asked of it first.

    `calls` are the paths of short calls to either server, with their numbers.
    """

    source: int
    target: int
    blobs: dict[str, tuple[int, int, bool]]
    calls: dict[str, int]
    stat: str
    put: str


async def _ask(channel: Channel, path: str) -> None:
    async with channel.request(path, Cardinality.UNARY_UNARY, bytes, bytes) as stream:
        await stream.send_message(b"", end=True)
        await stream.recv_message()


async def _move(job: Job, source: Channel, target: Channel, asks: bool, path: str) -> int:
    if asks:
        await _ask(target, job.stat)
    size = 0
    async with (
        source.request(path, Cardinality.UNARY_STREAM, bytes, bytes) as read,
        target.request(job.put, Cardinality.STREAM_UNARY, bytes, bytes) as put,
    ):
        await read.send_message(b"", end=True)
        async for message in read:
            size += len(message)
            await put.send_message(message)
        await put.end()
        await put.recv_message()
    return size


async def _each(works: Iterator[Coroutine[Any, Any, int]], at_once: int) -> int:
    total = 0

    async def worker() -> None:
        nonlocal total
        for work in works:
            size = await work
            total += size

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    return total


async def run(job: Job) -> dict[str, float]:
    source = Channel("127.0.0.1", job.source, codec=BytesCodec())
    target = Channel("127.0.0.1", job.target, codec=BytesCodec())
    try:
        await _ask(source, job.stat)
        await _ask(target, job.stat)
        began = perf_counter()
        moved: Sequence[int] = await asyncio.gather(
            *(
                _each(map(partial(_move, job, source, target, asks), repeat(path, count)), at_once)
                for path, (count, at_once, asks) in job.blobs.items()
            )
        )
        for path, count in job.calls.items():
            for _ in range(count):
                await _ask(source, path)
                await _ask(target, path)
        return {"bytes": sum(moved), "seconds": perf_counter() - began}
    finally:
        source.close()
        target.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(Job(**json.load(sys.stdin))))))
