"""The ceiling of gRPC: grpclib and nothing else, its messages bytes that were made before.

    python -m bench.grpc_server FILE

FILE is JSON: by the path of a call, the replies (messages in hex) that each such call gets once all
its requests came. The port is told on standard output.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream


class BytesCodec(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        encoded: bytes = message
        return encoded

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


@dataclass(frozen=True)
class _Service:
    replies: Mapping[str, Sequence[bytes]]

    def __mapping__(self) -> dict[str, Handler]:
        return {path: self._handler(replies) for path, replies in self.replies.items()}

    def _handler(self, replies: Sequence[bytes]) -> Handler:
        async def serve(stream: Stream[Any, Any]) -> None:
            while await stream.recv_message() is not None:
                pass
            for reply in replies:
                await stream.send_message(reply)

        return Handler(serve, Cardinality.STREAM_STREAM, bytes, bytes)


async def _main(told: Mapping[str, Sequence[str]]) -> None:
    replies = {path: list(map(bytes.fromhex, messages)) for path, messages in told.items()}
    server = Server([_Service(replies)], codec=BytesCodec())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await server.start(sock=listening)
        print(listening.getsockname()[1], flush=True)
        # Until the process is ended.
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(json.loads(Path(sys.argv[1]).read_bytes())))
