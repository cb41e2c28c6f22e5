"""Names and documents of extras, against what real tools wrote and against nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.signing import secret_key
from tvixstore.errors import InvalidData, TooLong, Untrusted
from tvixstore.extras import Conflict, ExtraName, check_document
from tvixstore.extras.documents import link_of, merge_documents
from tvixstore.nix import KeyRing, PublicKey, Realisation, StorePath

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "data/realisations-debuginfo.json").read_text()
)
KEYS = KeyRing([PublicKey.parse(VECTORS["public_key"])])
DRV = "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar.drv"
ID = f"sha256:{'2' * 64}!out"
TRUE = b'{"dependentRealisations":{},"id":"%b","outPath":"%b-x","signatures":[]}' % (
    ID.encode(),
    b"0" * 32,
)


def name_of(path: str) -> ExtraName:
    folder, _, rest = path.partition("/")
    rest = rest.removesuffix(".doi")
    if folder == "realisations":
        return ExtraName.realisation(rest)
    if folder == "build-trace-v2":
        return ExtraName.build_trace(*rest.split("/"))
    return ExtraName.debug_info(rest)


def realisation(output: str, *signers: str, identity: str = ID) -> bytes:
    made = Realisation(identity, StorePath(bytes(20), output))
    signatures = tuple(secret_key(name).sign(made.signed_text) for name in signers)
    return str(Realisation(made.id, made.out_path, {}, signatures)).encode()


@pytest.mark.parametrize("vector", VECTORS["realisations"], ids=lambda each: each["path"][-12:])
def test_real_realisations_are_kept_to_the_letter_if_their_key_is_trusted(
    vector: dict[str, str],
) -> None:
    name = name_of(vector["path"])
    assert name.path == vector["path"]
    data = vector["text"].encode()
    assert check_document(name, data) == check_document(name, data, KEYS) == data
    with pytest.raises(Untrusted):
        check_document(name, data, KeyRing([secret_key("other").public_key]))


@pytest.mark.parametrize("vector", VECTORS["build_trace_v2"], ids=lambda each: each["path"][-8:])
def test_a_real_build_trace_is_kept_to_the_letter(vector: dict[str, str]) -> None:
    name = name_of(vector["path"])
    assert name.path == vector["path"]
    assert check_document(name, vector["text"].encode()) == vector["text"].encode()
    with pytest.raises(Untrusted):
        check_document(name, vector["text"].encode(), KEYS)


def test_debug_information_goes_by_both_of_its_names() -> None:
    vector = VECTORS["debuginfo"]
    name = name_of(vector["path"])
    assert name.path == vector["path"]
    assert name_of(vector["also_asked_as"]) == name
    kept = check_document(name, vector["text"].encode())
    assert json.loads(kept) == json.loads(vector["text"])
    assert link_of(kept) == json.loads(vector["text"])["archive"]


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (ExtraName.realisation, ("",)),
        (ExtraName.realisation, (f"sha256:{'0' * 63}!out",)),
        (ExtraName.realisation, (f"sha256:{'0' * 64}!",)),
        (ExtraName.realisation, (f"sha256:{'0' * 64}!a/b",)),
        (ExtraName.realisation, (f"sha256:{'0' * 64}!{'o' * 212}",)),
        (ExtraName.realisation, (f"sha256:{'0' * 64}!out\n",)),
        (ExtraName.build_trace, ("..", "out")),
        (ExtraName.build_trace, (DRV, "")),
        (ExtraName.build_trace, (DRV.removesuffix(".drv"), "out")),
        (ExtraName.log, (DRV.removesuffix(".drv"),)),
        (ExtraName.log, ("../../etc/passwd.drv",)),
        (ExtraName.log, (f"{DRV[:33]}a\0.drv",)),
        (ExtraName.debug_info, ("0" * 39,)),
        (ExtraName.debug_info, ("G" * 40,)),
        (ExtraName.debug_info, ("0" * 40 + ".debug.debug",)),
    ],
)
def test_names_of_nothing_are_refused(
    make: Callable[..., ExtraName], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidData):
        make(*arguments)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (ExtraName.realisation(ID), b""),
        (ExtraName.realisation(ID), b"[]"),
        (ExtraName.realisation(ID), b"{}"),
        (ExtraName.realisation(ID), b"\xff{}"),
        (ExtraName.realisation(ID), b'{"a":' * 5000 + b"1" + b"}" * 5000),
        (ExtraName.realisation(ID), realisation("x", identity=f"sha256:{'3' * 64}!out")),
        (ExtraName.realisation(ID), TRUE.replace(b"[]", b"[3]")),
        (ExtraName.realisation(ID), TRUE.replace(b"[]", b'["nobody:AAAA"]')),
        (ExtraName.realisation(ID), TRUE.replace(b":{}", b':{"a":"b"}')),
        (ExtraName.realisation(ID), TRUE.replace(b"-x", b"/x")),
        (ExtraName.build_trace(DRV, "out"), b'{"outPath":"x","signatures":[]}'),
        (ExtraName.debug_info("0" * 40), b'{"archive":"../nar/x.nar"}'),
        (ExtraName.debug_info("0" * 40), b'{"archive":1,"member":"x"}'),
        (ExtraName.debug_info("0" * 40), b'{"archive":"%b","member":"x"}' % (b"x" * 4097)),
    ],
)  # fmt: skip
def test_documents_of_something_else_are_refused(name: ExtraName, text: bytes) -> None:
    with pytest.raises(InvalidData):
        check_document(name, text)


def test_a_true_one_of_these_is_taken() -> None:
    assert check_document(ExtraName.realisation(ID), TRUE) == TRUE


def test_a_document_is_bounded() -> None:
    with pytest.raises(TooLong):
        check_document(ExtraName.realisation(ID), b" " * (257 << 10))


def test_the_signatures_of_one_realisation_are_gathered() -> None:
    name = ExtraName.realisation(ID)
    one, two = realisation("x", "one-1"), realisation("x", "two-1")
    both = merge_documents(name, one, two)
    assert both == realisation("x", "one-1", "two-1")
    assert merge_documents(name, both, one) == both
    assert merge_documents(name, None, one) == one
    assert merge_documents(name, b"damaged", one) == one


def test_another_output_is_a_conflict() -> None:
    with pytest.raises(Conflict, match="-x, and was now put as .*-y"):
        merge_documents(ExtraName.realisation(ID), realisation("x"), realisation("y"))
