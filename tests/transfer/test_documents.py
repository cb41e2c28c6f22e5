"""Lists of paths, in each shape that Nix writes, and in shapes that it does not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pathinfo.samples import store_path
from tvixstore.errors import InvalidData
from tvixstore.transfer import Wanted, parse_document, parse_wanted

ONE, OTHER = store_path("one"), store_path("other")
SRI = "sha256-" + "A" * 43 + "="
SHAPES = {
    "array": [{"path": str(ONE), "narHash": SRI, "references": []}, {"path": str(OTHER)}],
    "array of names": [str(ONE), str(OTHER)],
    "object": {str(ONE): {"narHash": SRI}, str(OTHER): {}},
    "object of base names": {
        "info": {ONE.base_name: {"narHash": SRI}, OTHER.base_name: {}},
        "version": 2,
    },
    "closure": {"closure": [{"path": str(ONE), "narHash": SRI}, {"path": str(OTHER)}]},
    "structured attributes": {
        "builder": "/bin/sh",
        "graph": [{"path": str(ONE), "narHash": SRI, "closureSize": 1}, {"path": str(OTHER)}],
    },
}
GRAPH = f"{ONE}\n\n1\n{OTHER}\n{OTHER}\n/nix/store/x.drv\n0\n"


def hashes(found: list[Wanted]) -> list[bytes]:
    return [each.hash for each in found]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_of_json_is_read(shape: str) -> None:
    found = parse_document(json.dumps(SHAPES[shape]).encode(), "x")
    assert hashes(found) == [ONE.hash, OTHER.hash]
    if shape != "array of names":
        assert [each.nar_sha256 for each in found] == [bytes(32), None]


def test_an_exported_graph_is_read_with_its_references() -> None:
    assert hashes(parse_document(GRAPH.encode(), "x")) == [ONE.hash, OTHER.hash]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "x: empty"),
        ("\xff", "neither JSON nor"),
        ("{", "x: not JSON"),
        ("{}", "no paths in it"),
        ("[1]", r"x: \[0\]: no object with a `path`"),
        ('{"closure": [{}]}', r"x: closure\[0\]: no object"),
        ('{"closure": [{"path": "/tmp/x"}]}', r"x: closure\[0\]: '/tmp/x' is not"),
        (json.dumps([{"path": str(ONE), "narHash": 1}]), r"\[0\]: narHash is 1"),
        (json.dumps([{"path": str(ONE), "narHash": "sha256:x"}]), r"\[0\]: 'sha256:x' has 1"),
        (json.dumps([{"path": str(ONE), "valid": False}]), "was not valid"),
        (json.dumps({str(ONE): None}), "was not valid"),
        (json.dumps({str(ONE): 3}), "not what nix path-info"),
        (f"{ONE}\n\n", "line 3: '' is no number of references"),
        (f"{ONE}\n\nmany\n", "line 3: 'many' is no number"),
        (f"{ONE}\n\n2\n{OTHER}\n", "in the middle of references"),
        (f"{ONE}\n\n1\n/tmp/x\n", "line 4: '/tmp/x' is not below"),
        ("[" * 100_000, "x: n"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        parse_document(text.encode(), "x")


def test_what_is_not_text_is_no_list() -> None:
    with pytest.raises(InvalidData, match="x: not UTF-8"):
        parse_document(b"\xff\xfe", "x")


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(
        st.none() | st.integers() | st.text() | st.just(str(ONE)),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["path", "info"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_comes_is_a_list_or_invalid(data: bytes) -> None:
    try:
        found = parse_document(data, "x")
    except InvalidData:
        return
    assert len(set(hashes(found))) == len(found)


@pytest.mark.parametrize("text", [str(ONE), f"{ONE}/", ONE.base_name, ONE.digits])
def test_a_path_is_named_in_each_of_its_forms(text: str) -> None:
    assert parse_wanted(text).hash == ONE.hash


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{ONE}/bin/sh", f"write '{ONE}'"),
        ("/tmp/x", "is not a path in /nix/store"),
        ("x", "is no store path"),
        ("e" * 32, "is not a|digit|'e'"),
        ("", "is no store path"),
    ],
)
def test_what_is_no_path_is_refused_with_what_would_be(text: str, said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        parse_wanted(text)
