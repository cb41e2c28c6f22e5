"""Realisations and build traces: what is signed, and by whom."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.nix.samples import golden
from tests.nix.test_signature import SECRET
from tvixstore.errors import InvalidData
from tvixstore.nix import BuildTrace, KeyRing, PublicKey, Realisation, StorePath

GOLDEN = golden("realisations-debuginfo.json")
RING = KeyRing([PublicKey.parse(GOLDEN["public_key"])])


@pytest.mark.parametrize("row", GOLDEN["realisations"], ids=lambda row: row["path"][20:30])
def test_golden_realisations_read_write_and_verify(row: dict[str, str]) -> None:
    realisation = Realisation.parse(row["text"])
    assert row["path"] == f"realisations/{realisation.id}.doi"
    assert realisation.signed_text.decode() == row["signed_text"]
    assert RING.verifier(realisation.signed_text, realisation.signatures) == "rev-1"
    assert str(realisation) == row["text"]


def test_a_realisation_verifies_however_it_is_laid_out() -> None:
    text = GOLDEN["realisations"][0]["text"].replace(",", " ,\n ").replace('":', '" : ')
    realisation = Realisation.parse(text)
    assert RING.verifier(realisation.signed_text, realisation.signatures) == "rev-1"


def test_a_realisation_of_another_path_does_not_verify() -> None:
    text = GOLDEN["realisations"][0]["text"].replace("float-ca", "float-cb")
    realisation = Realisation.parse(text)
    assert RING.verifier(realisation.signed_text, realisation.signatures) is None


@pytest.mark.parametrize("row", GOLDEN["build_trace_v2"], ids=lambda row: row["path"][15:])
def test_golden_build_traces_read_write_and_verify_what_is_signed(row: dict[str, Any]) -> None:
    match = re.fullmatch(r"build-trace-v2/(.+)/(.+)\.doi", row["path"])
    assert match is not None
    drv_path, output = StorePath.from_base_name(match[1]), match[2]
    trace = BuildTrace.parse(drv_path, output, row["text"])
    assert trace.signed_text.decode() == row["signed_text"]
    assert str(trace) == row["text"]
    signature = SECRET.sign(trace.signed_text)
    signed = BuildTrace(drv_path, output, trace.out_path, (signature,))
    assert BuildTrace.parse(drv_path, output, str(signed)) == signed
    assert SECRET.public_key.verifies(signed.signatures[0], signed.signed_text)


OUT_PATH = f'"outPath":"{"0" * 32}-x"'
NO_JSON_OBJECTS = ["", "[]", "[" * 100_000, " " * (1 << 20) + "{}", "{" + OUT_PATH]


@pytest.mark.parametrize(
    "text",
    [
        *NO_JSON_OBJECTS,
        "{}",
        f'{{"id":1,{OUT_PATH}}}',
        '{"id":"sha256:00!out","outPath":"x"}',
        f'{{"id":"sha256:00!out",{OUT_PATH},"signatures":{{}}}}',
        f'{{"id":"sha256:00!out",{OUT_PATH},"signatures":["x"]}}',
        f'{{"id":"sha256:00!out",{OUT_PATH},"dependentRealisations":{{"a":1}}}}',
        # Half a surrogate pair.
        f'{{"id":"\\ud800",{OUT_PATH}}}',
        f'{{"id":"sha256:00!out",{OUT_PATH},"dependentRealisations":{{"\\ud800":"{"0" * 32}-x"}}}}',
    ],
    ids=lambda text: text[:90],
)
def test_what_is_no_realisation_is_refused(text: str) -> None:
    with pytest.raises(InvalidData, match="realisation|signature"):
        Realisation.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *NO_JSON_OBJECTS,
        "{}",
        '{"outPath":1}',
        f'{{{OUT_PATH},"signatures":["k:AAAA"]}}',
        f'{{{OUT_PATH},"signatures":[{{"keyName":"k"}}]}}',
        f'{{{OUT_PATH},"signatures":[{{"keyName":"k","sig":"AAAA"}}]}}',
    ],
    ids=lambda text: text[:90],
)
def test_what_is_no_build_trace_is_refused(text: str) -> None:
    with pytest.raises(InvalidData, match="realisation|signature"):
        BuildTrace.parse(StorePath(bytes(20), "x.drv"), "out", text)
