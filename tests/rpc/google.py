"""An independent client: Google's compiler for the messages, and grpcio for the calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

PROTOS = Path(__file__).parents[2] / "protos"


@cache
def compiled() -> descriptor_pool.DescriptorPool:
    """Our .proto files as Google's compiler understands them, in a pool of their own."""
    sources = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.rglob("*.proto"))]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *sources]
    done = subprocess.run(
        [*command, "--include_imports", "--descriptor_set_out=/dev/stdout"],
        check=True,
        capture_output=True,
    )
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(done.stdout).file:
        pool.Add(file)
    return pool


def message(name: str, /, **fields: Any) -> Any:
    """A message of that full name."""
    return message_factory.GetMessageClass(compiled().FindMessageTypeByName(name))(**fields)


@dataclass(frozen=True)
class Answer:
    """How a call ended, and everything that came before."""

    status: grpc.StatusCode
    details: str
    replies: list[Any]

    @property
    def reply(self) -> Any:
        assert self.status is grpc.StatusCode.OK, self
        (only,) = self.replies
        return only

    @property
    def wire(self) -> bytes:
        wire: bytes = self.reply.SerializeToString(deterministic=True)
        return wire


class GoogleClient:
    """Calls by full name, as in `tvix.castore.v1.BlobService/Stat`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        # What each call carries beside its messages.
        self.metadata: list[tuple[str, str]] = []

    async def call(
        self, method: str, *requests: Message | bytes, timeout: float | None = 30
    ) -> Answer:
        """Sends `requests` (bytes go out as they are), and takes all that comes."""
        return await asyncio.to_thread(self.call_now, method, requests, timeout)

    def call_now(
        self, method: str, requests: Iterable[Message | bytes], timeout: float | None = 30
    ) -> Answer:
        replies: list[Any] = []
        try:
            replies.extend(self.begin(method, requests, timeout))
        except grpc.RpcError as error:
            return Answer(error.code(), error.details(), replies)
        return Answer(grpc.StatusCode.OK, "", replies)

    def begin(
        self, method: str, requests: Iterable[Message | bytes], timeout: float | None = 30
    ) -> Any:
        """The call, an iterator of its replies, whose `cancel` leaves it."""
        service, name = method.split("/")
        described: MethodDescriptor = compiled().FindServiceByName(service).methods_by_name[name]
        reply_type = message_factory.GetMessageClass(described.output_type)
        # Whatever its cardinality, on the wire it is a stream each way.
        begin = self.channel.stream_stream(
            f"/{method}",
            request_serializer=_serialize,
            response_deserializer=reply_type.FromString,
        )
        return begin(iter(requests), timeout=timeout, metadata=self.metadata)


def _serialize(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


@asynccontextmanager
async def google_client(
    target: str,
    options: Sequence[tuple[str, Any]] = (),
    credentials: grpc.ChannelCredentials | None = None,
) -> AsyncIterator[GoogleClient]:
    """With `credentials` (of certificates) over TLS."""
    # Channels to one target share a connection in a process, unless they are told not to.
    alone = ("grpc.use_local_subchannel_pool", 1)
    if credentials is None:
        channel = grpc.insecure_channel(target, options=[alone, *options])
    else:
        channel = grpc.secure_channel(target, credentials, options=[alone, *options])
    try:
        yield GoogleClient(channel)
    finally:
        await asyncio.to_thread(channel.close)
