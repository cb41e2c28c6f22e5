"""Store paths, and those that follow from what they hold."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nix.samples import content_addresses, golden, store_paths
from tvixstore.errors import InvalidData, Unsupported
from tvixstore.nix import ContentAddress, NixHash, StorePath, hash_modulo, nixbase32
from tvixstore.nix.store_path import check_new_name

STORE_PATHS = golden("storepaths.json")
SELF = STORE_PATHS["self_reference"]
SELF_NAR = base64.b64decode(SELF["nar_base64"])
SELF_PATH = StorePath.from_absolute(SELF["store_path"])
SELF_DIGITS = SELF_PATH.digits.encode()
NARS = {row["store_path"]: row for row in golden("nix.json")["nars"]}


@pytest.mark.parametrize("row", STORE_PATHS["names"], ids=lambda row: repr(row["name"][:9]))
def test_golden_names_are_read_as_by_nix_and_made_more_strictly(row: dict[str, Any]) -> None:
    name = row["name"]
    text = f"/nix/store/{'0' * 32}-{name}"
    if row["accepted_by_nix28_and_snix"]:
        assert StorePath.from_absolute(text).name == name
    else:
        with pytest.raises(InvalidData):
            StorePath.from_absolute(text)
    if row["valid"]:
        check_new_name(name)
    else:
        with pytest.raises(InvalidData):
            check_new_name(name)


NO_STORE_PATHS = {
    "another store": f"/gnu/store/{'0' * 32}-x",
    "no store": f"{'0' * 32}-x",
    "below a path": f"/nix/store/{'0' * 32}-x/bin",
    "no name": f"/nix/store/{'0' * 32}-",
    "no dash": f"/nix/store/{'0' * 32}",
    "a short hash": f"/nix/store/{'0' * 31}-x",
    "a long name": f"/nix/store/{'0' * 32}-{'x' * 212}",
    "a newline at the end": f"/nix/store/{'0' * 32}-x\n",
    "another digit": f"/nix/store/{'e' * 32}-x",
}


@pytest.mark.parametrize("text", NO_STORE_PATHS.values(), ids=NO_STORE_PATHS)
def test_what_is_no_store_path_is_refused(text: str) -> None:
    with pytest.raises(InvalidData):
        StorePath.from_absolute(text)


@given(store_paths)
def test_store_paths_survive_a_round_trip(path: StorePath) -> None:
    assert StorePath.from_absolute(str(path)) == path
    assert StorePath.from_base_name(path.base_name) == path


@given(st.lists(store_paths))
def test_the_order_of_store_paths_is_that_of_base_names(paths: list[StorePath]) -> None:
    assert sorted(paths, key=StorePath.order) == sorted(paths, key=lambda path: path.base_name)


@pytest.mark.parametrize(
    "row",
    STORE_PATHS["content_addressed"],
    ids=lambda row: f"{row['ca'][:14]} {row['store_path'][44:]}",
)
def test_golden_content_addressed_paths_recompute(row: dict[str, Any]) -> None:
    address = ContentAddress.parse(row["ca"])
    assert str(address) == row["ca"]
    content = base64.b64decode(row["content_base64"])
    assert hashlib.new(address.hash.algorithm, content).digest() == address.hash.digest
    path = StorePath.from_absolute(row["store_path"])
    assert address.store_path(path.name) == path


def nar_of(row: dict[str, Any]) -> bytes:
    return base64.b64decode(row["nar_base64"])


# How `content_addressed_paths` of the golden data says it, and what is hashed.
METHODS = {
    "recursive sha256, no references": "recursive",
    "flat sha256": "flat",
    "text, no references": "text",
}


@pytest.mark.parametrize(
    "row", golden("nix.json")["content_addressed_paths"], ids=lambda row: row["method"]
)
def test_golden_paths_of_one_content_by_every_method(row: dict[str, Any]) -> None:
    method = METHODS[row["method"]]
    hashed = row["content"].encode()
    if method == "recursive":
        hashed = nar_of(NARS[row["store_path"]])
    digest = hashlib.sha256(hashed).digest()
    address = ContentAddress(method, NixHash("sha256", digest))  # type: ignore[arg-type]
    assert str(address.store_path(row["name"])) == row["store_path"]


def test_a_path_that_refers_to_itself_recomputes_from_its_hash_modulo() -> None:
    address = ContentAddress.parse(SELF["ca"])
    digest = hash_modulo([SELF_NAR], SELF_DIGITS)
    assert address == ContentAddress("recursive", NixHash("sha256", digest))
    others = {StorePath.from_absolute(text) for text in SELF["references"]} - {SELF_PATH}
    assert address.store_path(SELF_PATH.name, others, self_reference=True) == SELF_PATH
    assert address.store_path(SELF_PATH.name, others) != SELF_PATH
    assert address.store_path(SELF_PATH.name, self_reference=True) != SELF_PATH
    plain = hashlib.sha256(SELF_NAR).digest()
    assert nixbase32.encode(plain) == SELF["nar_sha256_nixbase32"]
    assert plain != digest


@pytest.mark.parametrize("size", [1, 2, 7, 31, 32, 33, 64, 1000])
def test_a_hash_modulo_does_not_depend_on_where_the_nar_is_cut(size: int) -> None:
    parts = [SELF_NAR[at : at + size] for at in range(0, len(SELF_NAR), size)]
    assert hash_modulo(parts, SELF_DIGITS) == hash_modulo([SELF_NAR], SELF_DIGITS)


@given(
    st.lists(st.sampled_from([b"aba", b"ab", b"a", b"b", b"xyz", b"\0", b""])),
    st.integers(1, 9),
)
def test_a_hash_modulo_replaces_and_counts_every_occurrence(words: list[bytes], size: int) -> None:
    content, digits = b"".join(words), b"aba"
    offsets, at = [], content.find(digits)
    while at >= 0:
        offsets.append(at)
        at = content.find(digits, at + 3)
    expected = content.replace(digits, b"\0\0\0") + b"".join(b"|%d" % n for n in offsets)
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    assert hash_modulo(parts, digits) == hashlib.sha256(expected).digest()


def test_without_occurrences_a_hash_modulo_is_the_plain_one() -> None:
    assert hash_modulo([], b"0" * 32) == hashlib.sha256(b"").digest()
    assert hash_modulo([b"some", b"thing"], b"0" * 32) == hashlib.sha256(b"something").digest()


@given(content_addresses)
def test_content_addresses_survive_a_round_trip(address: ContentAddress) -> None:
    assert ContentAddress.parse(str(address)) == address


SHA256 = "193s6bfb4ncbr0d3rpb177cac43b2z2h3afxi7grcswgci346hwg"


@pytest.mark.parametrize(
    "text",
    [
        f"fixed:git:sha256:{SHA256}",
        "fixed:git:sha1:l0gsj9lhpyv3sb22v8kf7i7f1rw11nsb",
        f"fixed:blake3:{SHA256}",
        f"fixed:r:blake3:{SHA256}",
        f"text:blake3:{SHA256}",
    ],
)
def test_kinds_of_newer_nix_are_told_from_nonsense(text: str) -> None:
    with pytest.raises(Unsupported):
        ContentAddress.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fixed",
        "fixed:",
        f"foo:sha256:{SHA256}",
        f"sha256:{SHA256}",
        "fixed:sha256",
        "fixed:sha256:",
        f"fixed:r:r:sha256:{SHA256}",
        f"fixed:sha256:{SHA256[1:]}",
        f"text:r:sha256:{SHA256}",
        "text:sha1:l0gsj9lhpyv3sb22v8kf7i7f1rw11nsb",
        f"fixed:sha256:{SHA256}:",
        f"fixed:sha256:{SHA256}\n",
    ],
)
def test_what_is_no_content_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidData):
        ContentAddress.parse(text)


@pytest.mark.parametrize(
    ("text", "other", "itself"),
    [
        (f"fixed:sha256:{SHA256}", True, False),
        (f"fixed:sha256:{SHA256}", False, True),
        ("fixed:r:sha1:l0gsj9lhpyv3sb22v8kf7i7f1rw11nsb", True, False),
        (f"text:sha256:{SHA256}", False, True),
    ],
)
def test_references_that_a_kind_cannot_have_are_refused(
    text: str, other: bool, itself: bool
) -> None:
    references = [SELF_PATH] if other else []
    with pytest.raises(InvalidData):
        ContentAddress.parse(text).store_path("x", references, self_reference=itself)


def test_the_order_of_references_does_not_matter_for_a_path() -> None:
    address = ContentAddress.parse(f"text:sha256:{SHA256}")
    one, two = StorePath(bytes(20), "one"), StorePath(b"\1" * 20, "two")
    assert address.store_path("x", [one, two]) == address.store_path("x", [two, one, two])
