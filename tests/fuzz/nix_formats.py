"""Nix's own formats: narinfos from substituters and uploaders, and what stands in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.fuzz.target import Target, canonical, golden, of_text, text_stays
from tvixstore.errors import InvalidData, Unsupported
from tvixstore.nix import (
    ContentAddress,
    NarInfo,
    NixHash,
    PublicKey,
    Signature,
    StorePath,
    nixbase32,
)
from tvixstore.nix.realisation import BuildTrace, Realisation

_MORE = golden("narinfo-more.json")
_PATHS = golden("storepaths.json")
_NIX = golden("nix.json")
_TRACES = golden("realisations-debuginfo.json")
_SURROGATE = '{"id":"\\ud800","outPath":"g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo"}'
_DRV = StorePath(bytes(20), "x.drv")
_KEY = _MORE["public_key"]

_NARINFOS = [
    _NIX["narinfo"]["text"],
    *[row["text"] for group in ("wild", "accepted", "rejected") for row in _MORE[group]],
]
_SIGNATURES = [line[5:] for text in _NARINFOS for line in text.splitlines() if line[:5] == "Sig: "]


def _narinfo_law(data: bytes, narinfo: NarInfo) -> None:
    text = str(narinfo)
    again = NarInfo.parse(text)
    # Without compression, these are written even where they were not known.
    assert replace(again, file_hash=None, file_size=None) == replace(
        narinfo, file_hash=None, file_size=None
    )
    assert str(again) == text


def _realisation_law(data: bytes, realisation: Realisation) -> None:
    text_stays(Realisation.parse)(data, realisation)
    assert realisation.signed_text


def _trace(text: str) -> BuildTrace:
    return BuildTrace.parse(_DRV, "out", text)


def _trace_law(data: bytes, trace: BuildTrace) -> None:
    text_stays(_trace)(data, trace)
    assert trace.signed_text


def _encoded(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


NIX_FORMATS: dict[str, Target[Any]] = {
    "narinfo": Target(
        of_text(NarInfo.parse),
        _encoded(*_NARINFOS),
        _narinfo_law,
        words=_encoded("\n", "Sig: ", "References: ", "CA: ", "NarSize: ", "unknown-deriver"),
    ),
    "store-path": Target(
        of_text(StorePath.from_absolute),
        _encoded(*[row["store_path"] for row in _PATHS["content_addressed"]]),
        canonical(lambda path: str(path).encode()),
    ),
    "nixbase32": Target(
        of_text(nixbase32.decode),
        _encoded(
            *[row["nixbase32"] for row in _NIX["nixbase32"]],
            *[row["text"] for row in _PATHS["not_nixbase32"]],
        ),
        canonical(lambda raw: nixbase32.encode(raw).encode()),
    ),
    "hash": Target(
        of_text(NixHash.parse),
        _encoded(
            str(NixHash("sha256", bytes(range(32)))),
            str(NixHash("md5", bytes(16))),
            "sha1:" + "0f" * 20,
            "sha256-HDfQGvQL4ugGkd48w99EN3ppmvuxfGjwgJZLL9Bx/BM=",
            "sha512:" + "ab" * 64,
        ),
        text_stays(NixHash.parse),
        words=_encoded("sha1", "sha256:", "-", "="),
    ),
    "signature": Target(
        of_text(Signature.parse), _encoded(*_SIGNATURES[:4]), text_stays(Signature.parse)
    ),
    "public-key": Target(of_text(PublicKey.parse), _encoded(_KEY), text_stays(PublicKey.parse)),
    "content-address": Target(
        of_text(ContentAddress.parse),
        _encoded(
            *[row["ca"] for row in _PATHS["content_addressed"]],
            "fixed:git:sha1:0123456789012345678901234567890123456789",
        ),
        text_stays(ContentAddress.parse),
        refusals=(InvalidData, Unsupported),
        words=_encoded("text:", "fixed:", "r:", "sha256:"),
    ),
    "realisation": Target(
        of_text(Realisation.parse),
        _encoded(*[row["text"] for row in _TRACES["realisations"]], _SURROGATE, "[" * 2000),
        _realisation_law,
        words=_encoded('"', "\\ud800", "{", "[", "null", "1e999", '"signatures":["'),
    ),
    "build-trace": Target(
        of_text(_trace),
        _encoded(*[row["text"] for row in _TRACES["build_trace_v2"]])
        + _encoded(
            '{"outPath":"g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo","signatures":[{"keyName":"a-1",'
            f'"sig":"{_SIGNATURES[0].partition(":")[2]}"}}]}}'
        ),
        _trace_law,
        words=_encoded('"', "\\ud800", '{"keyName":', "[", "null"),
    ),
}
