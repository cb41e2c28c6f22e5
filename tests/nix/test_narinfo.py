"""narinfos: of the wild, what Nix takes and what it calls corrupt, and how we write them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nix.samples import golden, narinfos
from tvixstore.errors import InvalidData
from tvixstore.nix import NarInfo, NixHash, StorePath
from tvixstore.nix.narinfo import MAX_CHARACTERS, MAX_SIGNATURES, MAX_VALUE

GOLDEN = golden("nix.json")["narinfo"]["text"]
MORE = golden("narinfo-more.json")
PLAIN = next(row["text"] for row in MORE["accepted"] if row["why"] == "no References")
PATH = "a4w3h6xd362k7z6pi562lgyjzv90fk2j-plain.txt"
CA = "fixed:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq"


def test_the_golden_narinfo_is_written_as_nix_wrote_it() -> None:
    assert str(NarInfo.parse(GOLDEN)) == GOLDEN


@pytest.mark.parametrize("row", MORE["wild"], ids=lambda row: row["why"])
def test_narinfos_of_the_wild_are_read(row: dict[str, Any]) -> None:
    narinfo = NarInfo.parse(row["text"])
    assert narinfo.nar_sha256.hex() == row["nar_sha256_hex"]
    assert narinfo.compression == row["compression"]
    assert [reference.base_name for reference in narinfo.references] == row["references"]
    deriver = None if narinfo.deriver is None else narinfo.deriver.base_name
    assert deriver == row["deriver"]
    assert len(narinfo.signatures) == row["text"].count("\nSig: ")
    assert NarInfo.parse(str(narinfo)) == narinfo


@pytest.mark.parametrize("row", MORE["accepted"], ids=lambda row: row["why"])
def test_what_nix_accepts_is_read(row: dict[str, str]) -> None:
    narinfo = NarInfo.parse(row["text"])
    assert narinfo.store_path.base_name == PATH
    assert narinfo.nar_sha256 == NarInfo.parse(PLAIN).nar_sha256
    assert len(narinfo.references) == row["text"].count(PATH) - 1


REJECTED = {
    **{row["why"]: row["text"] for row in MORE["rejected"]},
    "a carriage return": PLAIN.replace("\n", "\r\n"),
    "a NUL in a value": PLAIN.replace("x.nar", "x\0.nar"),
    "an escape in an unknown key": PLAIN + "F\x1boo: bar\n",
    "a line without a colon": PLAIN + "Foo\n",
    "an empty line in between": PLAIN.replace("URL", "\nURL"),
    "an empty URL": PLAIN.replace("nar/x.nar", ""),
    "NarHash of sha512": PLAIN.replace(
        "sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw", "sha512:" + "00" * 64
    ),
    "NarSize beyond 64 bits": PLAIN.replace("120", str(2**64)),
    "NarSize without end": PLAIN.replace("120", "1" * 5000),
    "NarSize with a sign": PLAIN.replace("120", "+120"),
    "NarSize in other digits": PLAIN.replace("120", "¹²⁰"),
    "a StorePath with something below": PLAIN.replace("plain.txt", "plain.txt/x"),
    "a Reference that is a path": PLAIN + f"References: /nix/store/{PATH}\n",
    "a Deriver that is none": PLAIN + "Deriver: x\n",
    "a FileHash that is none": PLAIN + "FileHash: sha256:x\n",
    "two CA": PLAIN + f"CA: {CA}\n" * 2,
    "two CA that newer Nix knows": PLAIN + f"CA: {CA.replace(':', ':git:', 1)}\n" * 2,
    "too many Sig": PLAIN + f"Sig: k:{'A' * 86}==\n" * (MAX_SIGNATURES + 1),
    "too long": PLAIN + "Foo: " + "x" * MAX_CHARACTERS + "\n",
}


@pytest.mark.parametrize("text", REJECTED.values(), ids=REJECTED)
def test_what_nix_calls_corrupt_is_refused(text: str) -> None:
    with pytest.raises(InvalidData):
        NarInfo.parse(text)


def test_a_narinfo_that_is_cut_off_is_refused() -> None:
    for cut in range(len(PLAIN)):
        with pytest.raises(InvalidData):
            NarInfo.parse(PLAIN[:cut])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN + "Deriver: x\n", "narinfo line 6, Deriver: 'x' is not a store path's base name"),
        (PLAIN + "Foo\n", "narinfo line 6 is 'Foo', not `Key: value`"),
        (PLAIN + f"CA: {CA}\n" * 2, "narinfo line 7 is a second CA"),
        (PLAIN.replace("URL", "Url"), "narinfo has no URL"),
    ],
)
def test_a_refusal_names_the_line_and_the_key(text: str, message: str) -> None:
    with pytest.raises(InvalidData) as refusal:
        NarInfo.parse(text)
    assert str(refusal.value) == message


def test_a_refusal_quotes_no_more_than_a_line_can_bear() -> None:
    with pytest.raises(InvalidData) as refusal:
        NarInfo.parse("<html>" * 10_000 + "\n")
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("compression", ["", "Compression: \n"])
def test_without_compression_it_is_bzip2(compression: str) -> None:
    text = PLAIN.replace("Compression: none\n", compression)
    assert NarInfo.parse(text).compression == "bzip2"


@pytest.mark.parametrize("prefix", ["fixed:git:", "fixed:r:blake3:", "fixed:blake3:"])
def test_a_content_address_of_newer_nix_is_dropped_and_the_rest_kept(prefix: str) -> None:
    text = PLAIN + f"CA: {CA.replace('fixed:', prefix)}\n".replace("blake3:sha256:", "blake3:")
    assert NarInfo.parse(text) == NarInfo.parse(PLAIN)


def test_a_content_address_is_kept() -> None:
    assert str(NarInfo.parse(PLAIN + f"CA: {CA}\n").ca) == CA


def test_a_signature_that_nobody_could_verify_is_dropped() -> None:
    good = f"k:{'A' * 86}=="
    text = PLAIN + f"Sig: \nSig: k:AAAA\nSig: {good}\nSig: no colon\n"
    assert [str(signature) for signature in NarInfo.parse(text).signatures] == [good]


def test_the_last_of_a_repeated_key_counts_as_with_nix() -> None:
    assert NarInfo.parse(PLAIN + "URL: nar/y.nar\n").url == "nar/y.nar"


def test_a_url_is_kept_to_the_letter() -> None:
    url = "https://cache.example/nar/x.nar?a=b: c&d=%20"
    assert NarInfo.parse(PLAIN.replace("nar/x.nar", url)).url == url


def test_without_compression_the_file_is_the_nar() -> None:
    narinfo = NarInfo.parse(PLAIN)
    assert narinfo.file_hash is None
    digits = "04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw"
    assert str(narinfo) == (
        f"StorePath: /nix/store/{PATH}\nURL: nar/x.nar\nCompression: none\n"
        f"FileHash: sha256:{digits}\nFileSize: 120\n"
        f"NarHash: sha256:{digits}\nNarSize: 120\nReferences: \n"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"nar_size": 0},
        {"nar_size": 2**64},
        {"nar_sha256": b""},
        {"url": ""},
        {"url": "nar/x\nSig: y"},
        {"compression": "no\nne"},
        {"system": "x\n"},
    ],
    ids=str,
)
def test_a_narinfo_is_valid_once_built(change: dict[str, Any]) -> None:
    valid: dict[str, Any] = {
        "store_path": StorePath.from_base_name(PATH),
        "url": "nar/x.nar",
        "compression": "none",
        "nar_sha256": hashlib.sha256(b"").digest(),
        "nar_size": 1,
    }
    NarInfo(**valid)
    with pytest.raises(InvalidData):
        NarInfo(**{**valid, **change})


@given(narinfos)
def test_narinfos_survive_a_round_trip(narinfo: NarInfo) -> None:
    text = str(narinfo)
    assert NarInfo.parse(text) == narinfo
    assert str(NarInfo.parse(text)) == text


@given(st.data())
def test_a_damaged_narinfo_is_refused_or_read_but_nothing_else(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOLDEN)))
    cut = data.draw(st.integers(0, 5))
    text = GOLDEN[:at] + data.draw(st.text(max_size=5)) + GOLDEN[at + cut :]
    try:
        narinfo = NarInfo.parse(text)
    except InvalidData:
        return
    assert NarInfo.parse(str(narinfo)) == narinfo


@pytest.mark.parametrize("key", ["StorePath", "URL", "Compression", "References", "Sig", "CA"])
def test_an_endless_value_is_not_repeated_in_the_error(key: str) -> None:
    lines = [line for line in GOLDEN.splitlines() if not line.startswith(f"{key}: ")]
    text = "".join(f"{line}\n" for line in [*lines, f"{key}: {'x' * 500_000}"])
    with pytest.raises(InvalidData) as caught:
        NarInfo.parse(text)
    assert len(str(caught.value)) < 1000


def test_a_long_url_and_many_references_are_read() -> None:
    narinfo = NarInfo.parse(GOLDEN)
    url = f"nar/{'x' * (MAX_VALUE - 4)}"
    text = GOLDEN.replace(f"URL: {narinfo.url}\n", f"URL: {url}\n")
    assert NarInfo.parse(text).url == url
    text = str(replace(narinfo, references=(narinfo.store_path,) * 1000))
    assert len(NarInfo.parse(text).references) == 1000


def test_file_hash_and_size_are_read() -> None:
    narinfo = NarInfo.parse(GOLDEN)
    assert narinfo.file_size == 520
    assert narinfo.file_hash == NixHash.parse(
        "sha256:00d2jp7nn99d9idc18k4z8cz69i0230rkxp8wi2ykzkwplg1flnk"
    )
