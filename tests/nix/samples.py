"""What the tests of this room share: the golden data, and strategies that make more of it."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tvixstore.nix import ContentAddress, NarInfo, NixHash, Signature, StorePath

_DATA = Path(__file__).parent.parent / "data"
_NAME_CHARACTERS = string.ascii_letters + string.digits + "+-._?="


def golden(name: str) -> Any:
    return json.loads((_DATA / name).read_text())


def raw(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


hashes = st.one_of(
    st.builds(NixHash, st.just("md5"), raw(16)),
    st.builds(NixHash, st.just("sha1"), raw(20)),
    st.builds(NixHash, st.just("sha256"), raw(32)),
    st.builds(NixHash, st.just("sha512"), raw(64)),
)
store_paths = st.builds(StorePath, raw(20), st.text(_NAME_CHARACTERS, min_size=1, max_size=211))
signatures = st.builds(Signature, st.sampled_from(["cache.nixos.org-1", "ours-1"]), raw(64))
content_addresses = st.one_of(
    st.builds(ContentAddress, st.sampled_from(["flat", "recursive"]), hashes),
    st.builds(ContentAddress, st.just("text"), st.builds(NixHash, st.just("sha256"), raw(32))),
)
narinfos = st.builds(
    NarInfo,
    store_path=store_paths,
    url=st.just("nar/x.nar?a=b&path=%2F"),
    compression=st.sampled_from(["xz", "zstd", "bzip2"]),
    nar_sha256=raw(32),
    nar_size=st.integers(1, 2**64 - 1),
    references=st.lists(store_paths, max_size=5).map(tuple),
    file_hash=st.none() | hashes,
    file_size=st.none() | st.integers(0, 2**64 - 1),
    deriver=st.none() | store_paths,
    system=st.none() | st.just("x86_64-linux"),
    signatures=st.lists(signatures, max_size=3).map(tuple),
    ca=st.none() | content_addresses,
)
