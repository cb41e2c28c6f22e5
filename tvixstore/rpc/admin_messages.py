"""The messages of `tvixstore.v1.Admin`, read as strictly as all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Final, TypeVar

from tvixstore.castore.message import Message, bytes_field, number_field, text_field
from tvixstore.errors import InvalidData
from tvixstore.nix import StorePath
from tvixstore.pathinfo import Pin
from tvixstore.rpc.messages import PATH_HASH_BYTES, Form
from tvixstore.upkeep import (
    KINDS,
    OUTCOMES,
    Event,
    Finding,
    Pinned,
    PinRequest,
    Progress,
    Summary,
    VerifyRequest,
)

Word = TypeVar("Word", bound=str)

_PROGRESS, _FINDING, _SUMMARY = 1, 2, 3
# The fields of a summary are numbered in their order.
_COUNTS: Final = tuple(field.name for field in fields(Summary))


def _present_text(number: int, value: str | None) -> bytes:
    """Not left out where it is empty, but only where it is `None`."""
    return b"" if value is None else bytes_field(number, value.encode())


def _present_number(number: int, value: int | None) -> bytes:
    if value is None:
        return b""
    return number_field(number, value) or b"%c\0" % (number << 3)


def _path(text: str, where: str) -> StorePath:
    try:
        return StorePath.from_base_name(text)
    except InvalidData as error:
        raise InvalidData(f"{where}: {error}") from error


def _encode_pin(request: PinRequest) -> bytes:
    return b"".join(
        (
            text_field(1, request.store_path.base_name),
            _present_text(2, request.comment),
            number_field(3, not request.fetch),
        )
    )


def _decode_pin(data: bytes) -> PinRequest:
    message = Message(data, "PinRequest")
    comment = None if message.optional(2, "comment") is None else message.text(2, "comment")
    path = _path(message.text(1, "store_path"), "PinRequest.store_path")
    return PinRequest(path, comment, message.number(3, "no_fetch") == 0)


def _encode_pinned(pinned: Pinned) -> bytes:
    pin = pinned.pin
    return b"".join(
        (
            text_field(1, pin.store_path.base_name),
            number_field(2, pin.since),
            text_field(3, pin.comment),
            number_field(4, pinned.paths),
            number_field(5, pinned.nar_size),
            *(text_field(6, path.base_name) for path in pinned.missing),
            number_field(7, pinned.fetched),
        )
    )


def _decode_pinned(data: bytes) -> Pinned:
    message = Message(data, "PinnedPath")
    return Pinned(
        Pin(
            _path(message.text(1, "store_path"), "PinnedPath.store_path"),
            message.number(2, "since"),
            message.text(3, "comment"),
        ),
        message.number(4, "paths"),
        message.number(5, "nar_size"),
        tuple(
            _path(text, f"PinnedPath.missing[{position}]")
            for position, text in enumerate(message.repeated_text(6, "missing"))
        ),
        message.number(7, "fetched"),
    )


def _decode_unpin(data: bytes) -> StorePath:
    return _path(Message(data, "UnpinRequest").text(1, "store_path"), "UnpinRequest.store_path")


def _decode_unpinned(data: bytes) -> bool:
    Message(data, "UnpinResponse")
    return True


def _decode_list(data: bytes) -> None:
    Message(data, "ListPinsRequest")


def _encode_forget(path_hashes: Sequence[bytes]) -> bytes:
    return b"".join(bytes_field(1, each) for each in path_hashes)


def _decode_forget(data: bytes) -> Sequence[bytes]:
    path_hashes = Message(data, "ForgetAbsencesRequest").repeated(1, "path_hashes")
    for position, each in enumerate(path_hashes):
        if len(each) != PATH_HASH_BYTES:
            raise InvalidData(
                f"ForgetAbsencesRequest.path_hashes[{position}] is {len(each)} bytes long, "
                f"expected {PATH_HASH_BYTES}"
            )
    return path_hashes


def _decode_forgotten(data: bytes) -> int:
    return Message(data, "ForgetAbsencesResponse").number(1, "forgotten")


def _encode_verify(request: VerifyRequest) -> bytes:
    return b"".join(
        (
            number_field(1, request.repair),
            *(text_field(2, path.base_name) for path in request.store_paths),
        )
    )


def _decode_verify(data: bytes) -> VerifyRequest:
    message = Message(data, "VerifyRequest")
    return VerifyRequest(
        message.number(1, "repair") != 0,
        tuple(
            _path(text, f"VerifyRequest.store_paths[{position}]")
            for position, text in enumerate(message.repeated_text(2, "store_paths"))
        ),
    )


def _encode_event(event: Event) -> bytes:
    match event:
        case Progress():
            return bytes_field(_PROGRESS, _encode_progress(event))
        case Finding():
            texts = (event.kind, event.key, event.reason, event.outcome)
            body = b"".join(text_field(number, text) for number, text in enumerate(texts, 1))
            return bytes_field(_FINDING, body)
    counts = (getattr(event, name) for name in _COUNTS)
    body = b"".join(number_field(number, count) for number, count in enumerate(counts, 1))
    return bytes_field(_SUMMARY, body)


def _encode_progress(progress: Progress) -> bytes:
    return b"".join(
        (
            text_field(1, progress.phase),
            number_field(2, progress.done),
            _present_number(3, progress.total),
            number_field(4, progress.bytes),
        )
    )


def _decode_event(data: bytes) -> Event:
    message = Message(data, "VerifyEvent")
    decoders = {
        _PROGRESS: ("progress", _decode_progress),
        _FINDING: ("finding", _decode_finding),
        _SUMMARY: ("summary", _decode_summary),
    }
    present = [
        (decode, body)
        for number, (name, decode) in decoders.items()
        if (body := message.optional(number, name)) is not None
    ]
    if len(present) != 1:
        raise InvalidData(f"VerifyEvent has {len(present)} events in it, expected one")
    ((decode, body),) = present
    return decode(body)


def _decode_progress(data: bytes) -> Event:
    message = Message(data, "VerifyProgress")
    return Progress(
        message.text(1, "phase"),
        message.number(2, "done"),
        message.optional_number(3, "total"),
        message.number(4, "bytes"),
    )


def _decode_finding(data: bytes) -> Event:
    message = Message(data, "VerifyFinding")
    return Finding(
        _word(message.text(1, "kind"), KINDS, "VerifyFinding.kind"),
        message.text(2, "key"),
        message.text(3, "reason"),
        _word(message.text(4, "outcome"), OUTCOMES, "VerifyFinding.outcome"),
    )


def _decode_summary(data: bytes) -> Event:
    message = Message(data, "VerifySummary")
    return Summary(*(message.number(number, name) for number, name in enumerate(_COUNTS, 1)))


def _word(text: str, words: tuple[Word, ...], where: str) -> Word:
    for word in words:
        if word == text:
            return word
    raise InvalidData(f"{where}: {text!r} is not known")


PIN = Form("PinRequest", _encode_pin, _decode_pin)
PINNED = Form("PinnedPath", _encode_pinned, _decode_pinned)
UNPIN: Form[StorePath] = Form(
    "UnpinRequest", lambda path: text_field(1, path.base_name), _decode_unpin
)
# That it was done: where nothing was pinned, there is no such reply.
UNPINNED: Form[bool] = Form("UnpinResponse", lambda _: b"", _decode_unpinned)
LIST_PINS: Form[None] = Form("ListPinsRequest", lambda _: b"", _decode_list)
FORGET: Form[Sequence[bytes]] = Form("ForgetAbsencesRequest", _encode_forget, _decode_forget)
FORGOTTEN: Form[int] = Form(
    "ForgetAbsencesResponse", lambda count: number_field(1, count), _decode_forgotten
)
VERIFY = Form("VerifyRequest", _encode_verify, _decode_verify)
EVENT: Form[Event] = Form("VerifyEvent", _encode_event, _decode_event)
