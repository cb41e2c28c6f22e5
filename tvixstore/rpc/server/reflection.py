"""gRPC's reflection, v1 and v1alpha: what is served here, for clients that have no .proto files.

The descriptors are those that betterproto2 keeps in the generated code, as Google's compiler wrote
them: names nested as in the .proto files, of tvix and of snix. They are loaded with the first
question.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grpclib.const import Cardinality, Status

from tvixstore.castore.message import Message, bytes_field, number_field, text_field
from tvixstore.errors import InvalidData
from tvixstore.rpc.messages import Form
from tvixstore.rpc.methods import Method

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool


@dataclass(frozen=True, slots=True)
class Question:
    """`field` says which of the questions `text` is for; `raw` is what was sent."""

    raw: bytes
    field: int
    text: str


_BY_FILENAME, _BY_SYMBOL, _BY_EXTENSION, _EXTENSIONS_OF, _LIST = 3, 4, 5, 6, 7
_NAMES: Final = {
    _BY_FILENAME: "file_by_filename",
    _BY_SYMBOL: "file_containing_symbol",
    _BY_EXTENSION: "file_containing_extension",
    _EXTENSIONS_OF: "all_extension_numbers_of_type",
    _LIST: "list_services",
}
_FILES, _EXTENSIONS, _SERVICES, _ERROR = 4, 5, 6, 7


def _decode(data: bytes) -> Question:
    message = Message(data, "ServerReflectionRequest")
    asked = [field for field, name in _NAMES.items() if message.optional(field, name) is not None]
    if len(asked) != 1:
        raise InvalidData(f"ServerReflectionRequest asks {len(asked)} questions, expected 1")
    field = asked[0]
    if field == _BY_EXTENSION:
        extension = Message(message.required(field, _NAMES[field]), _NAMES[field])
        return Question(data, field, extension.text(1, "containing_type"))
    return Question(data, field, message.text(field, _NAMES[field]))


_REQUEST: Final[Form[Question]] = Form(
    "ServerReflectionRequest", lambda question: question.raw, _decode
)
_REPLY: Final[Form[bytes]] = Form("ServerReflectionResponse", bytes, bytes)

METHODS: Final = [
    Method(
        f"reflection.{version}.ServerReflection",
        "ServerReflectionInfo",
        Cardinality.STREAM_STREAM,
        _REQUEST,
        _REPLY,
        packages=("grpc",),
    )
    for version in ("v1", "v1alpha")
]


@dataclass(eq=False, slots=True)
class ReflectionHandlers:
    services: Sequence[str]

    async def answer(
        self, questions: AsyncGenerator[Question, None]
    ) -> AsyncGenerator[bytes, None]:
        answers: dict[int, Callable[[str], bytes]] = {
            _BY_FILENAME: self._by_filename,
            _BY_SYMBOL: self._by_symbol,
            _BY_EXTENSION: self._by_extension,
            _EXTENSIONS_OF: self._extensions_of,
            _LIST: self._list,
        }
        async for question in questions:
            yield bytes_field(2, question.raw) + answers[question.field](question.text)

    def _by_filename(self, name: str) -> bytes:
        try:
            return _file(_pool().FindFileByName(name).serialized_pb)
        except KeyError:
            return _not_found(name)

    def _by_symbol(self, name: str) -> bytes:
        pool = _pool()
        try:
            return _file(pool.FindFileContainingSymbol(name).serialized_pb)
        except KeyError:
            # Methods are symbols too, but not to the pool.
            service, _, method = name.rpartition(".")
        try:
            found = pool.FindServiceByName(service)
        except KeyError:
            return _not_found(name)
        return (
            _file(found.file.serialized_pb) if method in found.methods_by_name else _not_found(name)
        )

    def _by_extension(self, name: str) -> bytes:
        # proto3 messages have none.
        return _not_found(name)

    def _extensions_of(self, name: str) -> bytes:
        try:
            _pool().FindMessageTypeByName(name)
        except KeyError:
            return _not_found(name)
        return bytes_field(_EXTENSIONS, text_field(1, name))

    def _list(self, _: str) -> bytes:
        return bytes_field(
            _SERVICES, b"".join(bytes_field(1, text_field(1, name)) for name in self.services)
        )


def _pool() -> DescriptorPool:
    # Importing a package adds its files.
    import tvixstore.proto.grpc.health.v1
    import tvixstore.proto.grpc.reflection.v1
    import tvixstore.proto.grpc.reflection.v1alpha
    import tvixstore.proto.snix.store.v1
    import tvixstore.proto.tvixstore.v1  # noqa: F401
    from tvixstore.proto.google_proto_descriptor_pool import default_google_proto_descriptor_pool

    return default_google_proto_descriptor_pool


def _file(descriptor: bytes) -> bytes:
    return bytes_field(_FILES, bytes_field(1, descriptor))


def _not_found(what: str) -> bytes:
    status = number_field(1, Status.NOT_FOUND.value)
    return bytes_field(_ERROR, status + text_field(2, f"{what!r} is not known here"))
