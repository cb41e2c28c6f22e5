"""Our own reader and writer as grpclib's codec: handlers and callers get values, never messages."""

from __future__ import annotations

from typing import Any, Final

from grpclib.encoding.base import CodecBase

# Of one message, in either direction; tvix and snix have the same.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


class WireCodec(CodecBase):
    """Message types are `messages.Form`s."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        encoded: bytes = message_type.encode(message)
        return encoded

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Raises `InvalidData`, with the field, unless `data` is a valid message."""
        return message_type.decode(data)
