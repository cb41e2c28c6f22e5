"""Realisations, build traces, logs and debug information: read, also of substituters, and put."""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from tvixstore.errors import Skipped
from tvixstore.extras import MAX_DOCUMENT_BYTES, ExtraName, Kind, check_document, plain_text
from tvixstore.http.answers import TEXT, Answer, absent, skipped
from tvixstore.http.puts import stored

if TYPE_CHECKING:
    from tvixstore.http.call import Call

_JSON: Final = "application/json"
# Up to so many bytes are answered in one piece.
_IN_MEMORY: Final = 64 << 10


def parse_realisation(text: str, query: str) -> ExtraName:
    return ExtraName.realisation(text)


def parse_build_trace(text: str, query: str) -> ExtraName:
    return ExtraName.build_trace(*text.split("/"))


def parse_log(text: str, query: str) -> ExtraName:
    return ExtraName.log(text)


def parse_debug_info(text: str, query: str) -> ExtraName:
    return ExtraName.debug_info(text)


async def get_extra(call: Call, name: ExtraName) -> Answer:
    extras = call.front.extras
    try:
        found = None if extras is None else await extras.find(name)
    except Skipped as error:
        if not error.answered:
            raise
        return skipped(error)
    if found is None:
        return absent(f"nobody has {name}")
    headers = {"Content-Type": TEXT if name.kind is Kind.LOG else _JSON}
    if call.method == "HEAD" and found.size is not None:
        headers["Content-Length"] = str(found.size)
        return Answer(HTTPStatus.OK, "present", headers)
    if (stream := await found.open()) is None:
        return absent(f"nobody has {name} any more")
    if call.method == "HEAD":
        await stream.aclose()
        return Answer(HTTPStatus.OK, "present", headers, length=None)
    if found.size is not None and found.size <= _IN_MEMORY:
        return Answer(HTTPStatus.OK, "present", headers, await stream.read_all())
    if found.size is not None:
        headers["Content-Length"] = str(found.size)
    return Answer(HTTPStatus.OK, "present", headers, stream=stream, length=found.size)


async def put_extra(call: Call, name: ExtraName) -> Answer:
    extras, inbox, incoming = call.front.extras, call.inbox, call.incoming
    assert extras is not None, "whoever takes uploads keeps extras"
    if name.kind is Kind.LOG:
        async with (
            aclosing(incoming.pieces()) as pieces,
            aclosing(plain_text(pieces, incoming.encodings, inbox.pools)) as log,
        ):
            await extras.put_log(name, log)
        return stored(str(name))
    body = await incoming.read(MAX_DOCUMENT_BYTES, inbox.pools)
    document = await inbox.pools.cpu.run(check_document, name, body, inbox.required)
    await extras.put_document(name, document)
    return stored(str(name))
