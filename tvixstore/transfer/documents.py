"""Lists of store paths as Nix writes them, told apart by their shape.

- `nix path-info --json`: an array of objects with `path`, or from Nix 2.19 on an object whose keys
  are the paths; since 2.32 that object may be below `info`;
- `{"closure": [...]}`, what builders get from `exportReferencesGraph` with structured attributes
  (below whatever name the graph has there);
- `exportReferencesGraph` as text: path, deriver, number of references, references, again and again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tvixstore.errors import InvalidData
from tvixstore.nix import STORE_DIR, NixHash, StorePath
from tvixstore.transfer.wanted import Wanted

# One of a hundred thousand paths is shorter; this bounds what a wrong file costs.
MOST_BYTES: Final = 256 << 20


def parse_document(data: bytes, name: str) -> list[Wanted]:
    """The paths in `data`, each once; `name` is what messages call it.

    Raises `InvalidData`, saying what is wrong where.
    """
    if len(data) > MOST_BYTES:
        raise InvalidData(f"{name}: longer than {MOST_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidData(f"{name}: not UTF-8, so no list of paths") from None
    start = text.lstrip()[:1]
    if not start:
        raise InvalidData(f"{name}: empty: expected a list of store paths")
    try:
        found = _from_json(text) if start in ("{", "[") else _from_graph(text)
    except InvalidData as error:
        raise InvalidData(f"{name}: {error}") from None
    return list({each.hash: each for each in found}.values())


def _from_json(text: str) -> list[Wanted]:
    try:
        document = json.loads(text)
    except RecursionError:
        raise InvalidData("nested too deeply") from None
    except ValueError as error:
        raise InvalidData(f"not JSON: {error}") from None
    if isinstance(document, list):
        return _from_array(document, "")
    if "info" in document and isinstance(document["info"], dict):
        return _from_object(document["info"], "info")
    graphs = {key: value for key, value in document.items() if isinstance(value, list)}
    if graphs:
        # Structured attributes hold whatever else the derivation has.
        graphs = {"closure": graphs["closure"]} if "closure" in graphs else graphs
        return [each for key, value in graphs.items() for each in _from_array(value, key)]
    return _from_object(document, "")


def _from_array(entries: Sequence[Any], where: str) -> list[Wanted]:
    found = []
    for number, entry in enumerate(entries):
        place = f"{where}[{number}]"
        if isinstance(entry, str):
            entry = {"path": entry}
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise InvalidData(f"{place}: no object with a `path`, as nix path-info --json has them")
        found.append(_wanted(entry["path"], entry, place))
    return found


def _from_object(entries: Mapping[str, Any], where: str) -> list[Wanted]:
    if not entries:
        raise InvalidData("no paths in it, and no `closure`")
    found = []
    for path, entry in entries.items():
        place = f"{where}[{json.dumps(path)[:200]}]"
        if entry is not None and not isinstance(entry, dict):
            raise InvalidData(f"{place}: not what nix path-info --json says of a path")
        found.append(_wanted(path, entry, place))
    return found


def _wanted(path: str, entry: Mapping[str, Any] | None, place: str) -> Wanted:
    # What Nix says of a path that its store does not have.
    if entry is None or entry.get("valid") is False:
        raise InvalidData(f"{place}: {path} was not valid where the list was made")
    nar_hash = entry.get("narHash")
    try:
        parsed = _parse_path(path)
        if nar_hash is None:
            return Wanted.of(parsed)
        if not isinstance(nar_hash, str):
            raise InvalidData(f"narHash is {json.dumps(nar_hash)[:100]}, not a hash")
        digest = NixHash.parse(nar_hash)
        if digest.algorithm != "sha256":
            raise InvalidData(f"narHash {nar_hash!r} is not of sha256")
    except InvalidData as error:
        raise InvalidData(f"{place}: {error}") from None
    return Wanted.of(parsed, digest.digest)


def _parse_path(text: str) -> StorePath:
    # From Nix 2.32 on the store's folder is left out.
    return StorePath.from_base_name(text.removeprefix(f"{STORE_DIR}/"))


def _from_graph(text: str) -> list[Wanted]:
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    found = []
    at = 0
    while at < len(lines):
        found.append(Wanted.of(_path_at(lines, at)))
        count = lines[at + 2] if at + 2 < len(lines) else ""
        if not (count.isascii() and count.isdigit() and len(count) < 10):
            raise InvalidData(
                f"line {at + 3}: {count[:100]!r} is no number of references: "
                "neither JSON nor an exportReferencesGraph"
            )
        begin, at = at + 3, at + 3 + int(count)
        if at > len(lines):
            raise InvalidData(f"ends after {len(lines)} lines, in the middle of references")
        found += [Wanted.of(_path_at(lines, number)) for number in range(begin, at)]
    return found


def _path_at(lines: Sequence[str], number: int) -> StorePath:
    try:
        return StorePath.from_absolute(lines[number])
    except InvalidData as error:
        message = str(error)[:200]
        raise InvalidData(
            f"line {number + 1}: {message}: neither JSON nor an exportReferencesGraph"
        ) from None
