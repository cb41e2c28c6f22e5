"""The golden NARs."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path

_DATA = Path(__file__).parent.parent / "data"
_MORE = json.loads((_DATA / "nar-more.json").read_text())


@dataclass(frozen=True)
class Valid:
    what: str
    nar: bytes
    # The root node as a castore Node message without a name, sizes as documented.
    node: bytes | None
    ls: bytes | None
    ls_new_key_order: str | None


def _optional_bytes(row: dict[str, str], key: str) -> bytes | None:
    return b64decode(row[key]) if key in row else None


VALID = [
    Valid(
        row["what"],
        b64decode(row["nar_base64"]),
        bytes.fromhex(row["castore"]["documented"]["node_no_name_hex"])
        if "castore" in row
        else None,
        _optional_bytes(row, "ls_nix28_base64"),
        row.get("ls_new_key_order"),
    )
    for row in _MORE["valid"] + _MORE["also_valid"]
] + [
    Valid(
        row["store_path"],
        b64decode(row["nar_base64"]),
        b64decode(row["castore_node_no_name_base64url"] + "==", altchars=b"-_"),
        None,
        None,
    )
    for row in json.loads((_DATA / "nix.json").read_text())["nars"]
]
INVALID: list[tuple[str, bytes]] = [
    (row["why"], bytes.fromhex(row["nar_hex"])) for row in _MORE["invalid"]
]
