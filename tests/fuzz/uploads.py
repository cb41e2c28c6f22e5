"""What is put over HTTP: which compression it is of, JSON documents, and what they are called."""

from __future__ import annotations

from typing import Any

from tests.fuzz.archives import ARCHIVES
from tests.fuzz.target import Target, golden, of_text, stays
from tvixstore.castore import Digest, FileNode
from tvixstore.compression import SNIFFED, decoder, sniff
from tvixstore.errors import InvalidData
from tvixstore.extras.documents import check_document, merge_documents
from tvixstore.extras.names import ExtraName
from tvixstore.http.routes import find
from tvixstore.nix.json_text import parse_object
from tvixstore.pathinfo.upload_rows import Upload, decode_upload, encode_upload

_TRACES = golden("realisations-debuginfo.json")
_REALISATION = ExtraName.realisation(_TRACES["realisations"][0]["path"][13:-4])
_TRACE = ExtraName.build_trace("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar.drv", "foo")
_DEBUG = ExtraName.debug_info("0" * 40)
_DOCUMENTS = [
    _TRACES["realisations"][0]["text"].encode(),
    _TRACES["build_trace_v2"][0]["text"].encode(),
    b'{"archive":"../nar/x.nar.xz","member":"lib/debug/x.debug"}',
    # Brackets that are hidden behind what is a quote only in another encoding.
    ('{"\u0122":' + "[" * 1500 + '"\u0122"}').encode("utf-16-le"),
    '{"a":"\ud800"}'.encode("utf-8", "surrogatepass"),
    b'{"a":"\\ud800"}',
]


def _sniffed(data: bytes) -> str:
    compression = sniff(data[:SNIFFED], "x.nar")
    decoder(compression)
    return compression


def _document(name: ExtraName) -> Target[Any]:
    def law(data: bytes, kept: bytes) -> None:
        assert check_document(name, kept) == kept
        assert merge_documents(name, kept, kept) == kept

    return Target(
        lambda data: check_document(name, data),
        _DOCUMENTS,
        law,
        words=(
            b'"',
            b"{",
            b"[",
            b"\\ud800",
            b"null",
            b"1e999",
            b'"signatures":[',
            b"\0",
            b"\xff\xfe",
        ),
    )


def _put_route(text: str) -> Any:
    """What the front door makes of the target of a PUT."""
    path, _, query = text.partition("?")
    if (found := find(path)) is None or "PUT" not in found[0].methods:
        return None
    return found[0].methods["PUT"].parse(found[1], query)


UPLOADS: dict[str, Target[Any]] = {
    "sniffed": Target(
        _sniffed, [seed[1:] for seed in ARCHIVES["decompress"].seeds] + [b"LZIP", b"\x1f\x9d"]
    ),
    "json": Target(
        parse_object,
        _DOCUMENTS,
        words=(b'"', b"\\", b"{", b"}", b"[", b"]", b"[" * 300, b"9" * 5000, b"\0", b"NaN"),
    ),
    "document-realisation": _document(_REALISATION),
    "document-build-trace": _document(_TRACE),
    "document-debuginfo": _document(_DEBUG),
    "put-route": Target(
        of_text(_put_route),
        [
            f"/realisations/{_REALISATION.identity}.doi".encode(),
            b"/build-trace-v2/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar.drv/foo.doi",
            b"/log/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar.drv",
            b"/debuginfo/" + b"0" * 40 + b".debug",
            b"/nar/0ik9mpqxpd9hv325hdblj2nawqj5w7951qdyy8ikxgwr6fq7m11c.nar.xz",
        ],
        words=(b"/", b".doi", b".drv", b"!", b"..", b"%2f", b"?"),
    ),
    "upload-row": Target(
        lambda data: decode_upload(data),
        [
            encode_upload(
                Upload(
                    nar_sha256=bytes(32),
                    nar_size=5,
                    compression="xz",
                    file_sha256=bytes(32),
                    file_size=3,
                    node=FileNode(Digest(bytes(32)), 5),
                ),
                1,
            )
        ],
        stays(lambda upload: encode_upload(upload, 1), decode_upload),
        (InvalidData,),
    ),
}
