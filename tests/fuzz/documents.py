"""What somebody wants copied: lists of paths from other programs, and words on the command line."""

from __future__ import annotations

from typing import Any

from tests.fuzz.target import Target, of_text
from tvixstore.cli.top_view import Snapshot, lines, read_snapshot
from tvixstore.nix.json_text import parse_object
from tvixstore.transfer.documents import parse_document
from tvixstore.transfer.wanted import Wanted, parse_wanted

_PATH = "/nix/store/ykqkpv6sqvdb4x40wgikypk4a6wcpc03-plain.txt"
_HASH = "sha256-HDfQGvQL4ugGkd48w99EN3ppmvuxfGjwgJZLL9Bx/BM="


def _document_law(data: bytes, wanted: list[Wanted]) -> None:
    assert len({each.hash for each in wanted}) == len(wanted)
    assert all(len(each.hash) == 20 for each in wanted)


def _snapshot_law(data: bytes, snapshot: Snapshot) -> None:
    assert all(line.isprintable() for line in lines("", snapshot))


DOCUMENTS: dict[str, Target[Any]] = {
    "snapshot": Target(
        lambda data: read_snapshot(parse_object(data)),
        [
            (
                b'{"time":1.5,"fills":[{"kind":"nar","what":"x","source":"m","phase":"waiting",'
                b'"reason":"r","bytes":5,"total":10,"rate":7,"readers":1,"started":1}],'
                b'"left_out":1,'
                b'"totals":{"fills":2,"rate":7,"requests":{"http":1},"upstreams_up":1},'
                b'"down":["y"]}'
            ),
            b'{"time":0,"fills":[]}',
            b"[" * 2000,
        ],
        _snapshot_law,
        words=(b"null", b"Infinity", b"NaN", b"1e999", b"\\u001b[2J", b'"totals":', b"-1"),
        memory=8 << 20,
    ),
    "path-list": Target(
        lambda data: parse_document(data, "-"),
        [
            f'[{{"path":"{_PATH}","narHash":"{_HASH}"}},"{_PATH}"]'.encode(),
            f'{{"{_PATH}":{{"narHash":"{_HASH}"}}}}'.encode(),
            f'{{"info":{{"{_PATH[11:]}":{{"valid":true}}}},"version":2}}'.encode(),
            f'{{"closure":[{{"path":"{_PATH}","references":[]}}],"x":[1]}}'.encode(),
            f"{_PATH}\n\n1\n{_PATH}\n".encode(),
            b"[" * 2000,
            b"\xef\xbb\xbf[]",
        ],
        _document_law,
        words=(b"null", b"[", b"{", b'"path":', b'"info":', b"\\ud800", b"9" * 5000, b"\n0\n"),
        memory=8 << 20,
    ),
    "wanted": Target(
        of_text(parse_wanted),
        [_PATH.encode(), _PATH[11:].encode(), _PATH[11:43].encode(), f"{_PATH}/bin/x".encode()],
        words=(b"/", b"//", b"..", b"-"),
    ),
}
