"""What somebody wants copied: lists of paths from other programs, and words on the command line."""

from __future__ import annotations

from typing import Any

from tests.fuzz.target import Target, of_text
from tvixstore.transfer.documents import parse_document
from tvixstore.transfer.wanted import Wanted, parse_wanted

_PATH = "/nix/store/ykqkpv6sqvdb4x40wgikypk4a6wcpc03-plain.txt"
_HASH = "sha256-HDfQGvQL4ugGkd48w99EN3ppmvuxfGjwgJZLL9Bx/BM="


def _document_law(data: bytes, wanted: list[Wanted]) -> None:
    assert len({each.hash for each in wanted}) == len(wanted)
    assert all(len(each.hash) == 20 for each in wanted)


DOCUMENTS: dict[str, Target[Any]] = {
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
