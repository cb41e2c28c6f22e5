"""nixbase32 and hashes in every encoding."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nix.samples import golden, hashes
from tvixstore.errors import InvalidData
from tvixstore.nix import NixHash, nixbase32

STORE_PATHS = golden("storepaths.json")
NOT_NIXBASE32 = {row["why"]: row["text"] for row in STORE_PATHS["not_nixbase32"]}


@pytest.mark.parametrize("row", golden("nix.json")["nixbase32"], ids=lambda row: row["nixbase32"])
def test_golden_nixbase32_reads_and_writes(row: dict[str, str]) -> None:
    data = bytes.fromhex(row["hex"])
    assert nixbase32.encode(data) == row["nixbase32"]
    assert nixbase32.decode(row["nixbase32"]) == data


@given(st.binary(max_size=70))
def test_nixbase32_survives_a_round_trip(data: bytes) -> None:
    assert nixbase32.decode(nixbase32.encode(data)) == data


@given(st.binary(max_size=70))
def test_nixbase32_is_what_its_definition_says(data: bytes) -> None:
    # Digit n is bits 5n to 5n+4 of the little-endian number; the highest comes first.
    number = int.from_bytes(data, "little")
    count = nixbase32.digits_for(len(data))
    digits = [nixbase32.ALPHABET[number >> 5 * n & 31] for n in range(count)]
    assert nixbase32.encode(data) == "".join(reversed(digits))


@pytest.mark.parametrize(
    "text",
    [*NOT_NIXBASE32.values(), "+0000000", "0_000000", " 0000000", "0000000é", "000", "zz"],
    ids=[*NOT_NIXBASE32, "a sign", "an underscore", "a blank", "not ASCII", "3 digits", "spare"],
)
def test_what_is_no_nixbase32_is_refused(text: str) -> None:
    with pytest.raises(InvalidData):
        nixbase32.decode(text)


def test_a_refusal_says_which_digit_it_was() -> None:
    with pytest.raises(InvalidData, match="'e', which is not a nixbase32 digit"):
        nixbase32.decode("e" * 32)


def test_golden_numbers_of_digits() -> None:
    sizes = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64, "store path": 20}
    for kind, digits in STORE_PATHS["digits"].items():
        assert nixbase32.digits_for(sizes[kind]) == digits


@given(hashes)
def test_hashes_are_read_in_every_encoding(nix_hash: NixHash) -> None:
    in_base64 = base64.b64encode(nix_hash.digest).decode()
    for text in (
        str(nix_hash),
        f"{nix_hash.algorithm}:{nix_hash.digest.hex()}",
        f"{nix_hash.algorithm}:{nix_hash.digest.hex().upper()}",
        f"{nix_hash.algorithm}:{in_base64}",
        f"{nix_hash.algorithm}-{in_base64}",
    ):
        assert NixHash.parse(text) == nix_hash


NO_HASHES = {
    "no algorithm": "04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw",
    "an unknown algorithm": "blake3:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw",
    "no digits": "sha256:",
    "too few digits": "sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dq",
    "digits of sha1": "sha256:00000000000000000000000000000000",
    "hex as SRI": "sha256-" + "00" * 32,
    "blanks in hex": "sha1:" + "00 " * 13 + "0",
    "no hex": "md5:" + "0g" * 16,
    "no base64": "sha256:" + "*" * 43 + "=",
    "padding in base64": "sha256:" + "=" * 44,
    "not ASCII": "md5:" + "é" * 24,
}


@pytest.mark.parametrize("text", NO_HASHES.values(), ids=NO_HASHES)
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(InvalidData):
        NixHash.parse(text)
