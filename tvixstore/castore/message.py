"""Just enough protobuf to write a message's fields, and to read them strictly.

A message is taken apart as a whole: fields by number, each with its wire type. What a lenient
reader would guess at is refused when the field is asked for: a singular one that comes twice, a
truncated one, a wrong wire type. Unknown fields are skipped, as protobuf has it.
"""

from __future__ import annotations

from tvixstore.castore import MAX_SIZE
from tvixstore.castore.wire import encode_varint
from tvixstore.errors import InvalidData

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10
_MAX_FIELD = 2**29 - 1
# Fields of one message: 4 MiB of digests have fewer. Each takes two bytes of whoever sends it, and
# a hundred, and microseconds, of whoever reads it.
_MOST_FIELDS = 125_000


def bytes_field(number: int, value: bytes) -> bytes:
    return b"%c%b%b" % (number << 3 | _BYTES, encode_varint(len(value)), value)


def text_field(number: int, value: str) -> bytes:
    """Left out where it is empty."""
    return bytes_field(number, value.encode()) if value else b""


def number_field(number: int, value: int) -> bytes:
    """Left out where it is 0."""
    return b"%c%b" % (number << 3 | _VARINT, encode_varint(value)) if value else b""


class Message:
    """The fields of one message, at most `most`; `where` names it in errors."""

    def __init__(self, data: bytes, where: str, most: int = _MOST_FIELDS) -> None:
        self._where = where
        self._data = data
        self._at = 0
        self._fields: dict[int, list[int | bytes]] = {}
        left = most
        while self._at < len(data):
            left -= 1
            if left < 0:
                raise InvalidData(f"{where}: has more than {most} fields")
            tag = self._take_varint()
            if not 0 < tag >> 3 <= _MAX_FIELD:
                raise InvalidData(f"{where}: field number {tag >> 3} before byte {self._at}")
            self._fields.setdefault(tag >> 3, []).append(self._take_value(tag & 7))

    def number(self, field: int, name: str) -> int:
        """A number; 0 if it is left out."""
        return self.optional_number(field, name) or 0

    def optional_number(self, field: int, name: str) -> int | None:
        value = self._single(field, name)
        if isinstance(value, bytes):
            raise self._error(name, "is not a number")
        return value

    def optional(self, field: int, name: str) -> bytes | None:
        value = self._single(field, name)
        return None if value is None else self._bytes(value, name)

    def required(self, field: int, name: str) -> bytes:
        value = self._single(field, name)
        if value is None:
            raise self._error(name, "is missing")
        return self._bytes(value, name)

    def exactly(self, field: int, name: str, length: int) -> bytes:
        """As many bytes as that."""
        value = self.optional(field, name) or b""
        if len(value) != length:
            raise self._error(name, f"is {len(value)} bytes long, expected {length}")
        return value

    def text(self, field: int, name: str) -> str:
        """A string; empty if it is left out."""
        return self._text(self.optional(field, name) or b"", name)

    def repeated(self, field: int, name: str) -> list[bytes]:
        values = self._fields.get(field, [])
        return [self._bytes(value, f"{name}[{at}]") for at, value in enumerate(values)]

    def repeated_text(self, field: int, name: str) -> list[str]:
        values = self.repeated(field, name)
        return [self._text(value, f"{name}[{at}]") for at, value in enumerate(values)]

    def _single(self, field: int, name: str) -> int | bytes | None:
        values = self._fields.get(field)
        if values is None:
            return None
        if len(values) > 1:
            raise self._error(name, f"comes {len(values)} times")
        return values[0]

    def _bytes(self, value: int | bytes, name: str) -> bytes:
        if isinstance(value, int):
            raise self._error(name, "is a number, not bytes")
        return value

    def _text(self, value: bytes, name: str) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise self._error(name, "is not UTF-8") from None

    def _take_value(self, wire_type: int) -> int | bytes:
        if wire_type == _VARINT:
            return self._take_varint()
        if wire_type == _BYTES:
            return self._take(self._take_varint())
        if wire_type in _FIXED_BYTES:
            # No field of ours has a fixed width, so whatever number it is, it is unknown or wrong.
            return int.from_bytes(self._take(_FIXED_BYTES[wire_type]), "little")
        raise InvalidData(f"{self._where}: wire type {wire_type} at byte {self._at} is not known")

    def _take(self, length: int) -> bytes:
        value = self._data[self._at : self._at + length]
        if len(value) < length:
            raise self._truncated()
        self._at += length
        return value

    def _take_varint(self) -> int:
        value = 0
        for position in range(_MAX_VARINT_BYTES):
            if self._at >= len(self._data):
                raise self._truncated()
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << 7 * position
            if byte < 0x80:
                break
        if byte >= 0x80 or value > MAX_SIZE:
            raise InvalidData(f"{self._where}: number before byte {self._at} is above 64 bits")
        return value

    def _truncated(self) -> InvalidData:
        return InvalidData(f"{self._where}: ends within a field, after {len(self._data)} bytes")

    def _error(self, name: str, what: str) -> InvalidData:
        return InvalidData(f"{self._where}.{name} {what}")
