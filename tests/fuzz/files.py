"""What is read from disk, a file by an owner, a record of our own, an object in a bucket."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from blake3 import blake3

from tests.fuzz.target import Target, canonical, of_text, stays
from tvixstore.blob.chunk_codec import Record, StoredForm, decode_chunk, encode_chunk
from tvixstore.blob.chunk_list import Entry, decode_chunk_list, encode_chunk_list
from tvixstore.blob.object_codec import (
    decode_chunk_object,
    decode_stat,
    encode_chunk_object,
    encode_stat,
)
from tvixstore.castore import Digest
from tvixstore.compose import Config, lint, load_text, lower, show
from tvixstore.compose.environment import interpolate
from tvixstore.errors import ConfigError, CorruptData
from tvixstore.pathinfo.nix.netrc_text import Netrc, parse_netrc

_ROOT = Path(__file__).parent.parent.parent
_DIGEST = bytes(range(32))
_FOLDER = Path("/srv/tvixstore")
# `${HOME}`, so that what is interpolated is fuzzed too.
_ENVIRON = {"HOME": "/home/user"}


class Told(Exception):
    """A refusal that gives away what was in the file."""


def _netrc(text: str) -> Netrc:
    try:
        return parse_netrc(text)
    except ValueError as error:
        if not re.fullmatch(
            r"line \d+ is (of no machine|not netrc)|it ends in the middle of an entry", str(error)
        ):
            raise Told(str(error)) from error
        raise


def _compose(text: str) -> Config:
    return load_text(text, "compose.toml", _FOLDER, _ENVIRON)


def _compose_law(data: bytes, config: Config) -> None:
    graph = lower(config)
    assert show(config.daemon, graph)
    assert all(str(warning) for warning in lint(config))


def _compose_files() -> list[bytes]:
    files = [_ROOT / "compose.toml", *_ROOT.glob("examples/*/compose.toml")]
    files += (_ROOT / "tests" / "compose").glob("*.toml")
    # What is commented out in the shipped file could stand as it is.
    texts = [re.sub(rb"^#(?! )", b"", file.read_bytes(), flags=re.M) for file in sorted(files)]
    # A short one: mutants of it are about what they change.
    return [
        *texts,
        b'[daemon]\nhttp = "off"\n[[substituters]]\nurl = "file:///x"\nunsigned = true\n',
    ]


def _chunk(data: bytes) -> bytes:
    record = Record.decode(_DIGEST, data)
    return decode_chunk(_DIGEST, record, record.payload or b"")


def _record_written(record: Record) -> bytes:
    payload = record.payload or b""
    form = StoredForm(_DIGEST, record.size, record.compressed, payload, record.stored)
    return (form.file_row() if record.payload is None else form.inline_row()).row


def _list_of(data: bytes) -> list[Entry]:
    """With the check that it needs to be looked at any further."""
    check = blake3(_DIGEST)
    check.update(data)
    return decode_chunk_list(_DIGEST, b"\1" + check.digest(length=16) + data)


FILES: dict[str, Target[Any]] = {
    "netrc": Target(
        of_text(_netrc),
        [
            b"machine cache.example login me password secret\n",
            b'default login "a b\\"c" password x # y\nmacdef init\ncd\n\nmachine x account y\n',
        ],
        refusals=(ValueError,),
        words=(
            b"machine ",
            b"default ",
            b"login ",
            b"macdef x\n",
            b'"',
            b"\\",
            b"#",
            b"\x0c",
            b"\n\n",
        ),
    ),
    "compose": Target(
        of_text(_compose),
        _compose_files(),
        _compose_law,
        (ConfigError,),
        words=(
            *(
                b"[",
                b"]",
                b"=",
                b'"',
                b"'",
                b"{",
                b"${HOME}",
                b"$",
                b"\n[daemon]\n",
                b"[[substituters]]\n",
            ),
            *(b"9" * 5000, b"inf", b"nan", b"1979-05-27", b"true", b"0x1", b"\\u0000", b'"unix:"'),
        ),
        memory=32 << 20,
    ),
    "interpolation": Target(
        of_text(lambda text: interpolate(text, _ENVIRON, [])),
        [b"${HOME}/x", b"$$", b"$HOME", b"${", b"${NOT_SET}"],
        refusals=(),
    ),
    "chunk-record": Target(
        lambda data: Record.decode(_DIGEST, data),
        [
            encode_chunk(bytes(500), compress=True).inline_row().row,
            encode_chunk(b"abc", compress=False).inline_row().row,
            encode_chunk(b"abc", compress=False).file_row().row,
        ],
        canonical(_record_written),
        (CorruptData,),
    ),
    "chunk": Target(
        _chunk,
        [encode_chunk(bytes(100_000), compress=True).inline_row().row],
        refusals=(CorruptData,),
    ),
    "chunk-list": Target(
        _list_of,
        [b"", encode_chunk_list(_DIGEST, [(_DIGEST, 5), (bytes(32), 2**32 - 1)])[17:]],
        stays(
            lambda entries: encode_chunk_list(_DIGEST, entries),
            lambda written: decode_chunk_list(_DIGEST, written),
        ),
        (CorruptData,),
    ),
    "bucket-stat": Target(
        lambda data: decode_stat(Digest(_DIGEST), data),
        [encode_stat([(_DIGEST, 5), (bytes(32), 70_000)]), b""],
        refusals=(CorruptData,),
    ),
    "bucket-chunk": Target(
        lambda data: decode_chunk_object(_DIGEST, data, 100_000),
        [encode_chunk_object(bytes(100_000))[1]],
        refusals=(CorruptData,),
    ),
}
