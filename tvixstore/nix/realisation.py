"""Realisations and build traces: which path an output of a content-addressing derivation became.

Two forms of one thing: Nix up to 2.34 keeps `realisations/<id>.doi`, later Nix
`build-trace-v2/<derivation>/<output>.doi`. Both are JSON, compact and with sorted keys, and a
signature covers such JSON too, so it can be checked after any reformatting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tvixstore.errors import InvalidData
from tvixstore.nix.signature import Signature
from tvixstore.nix.store_path import StorePath

MAX_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Realisation:
    """One output; `id` is `sha256:<hex>!<output>`, as are the keys of `dependencies`."""

    id: str
    out_path: StorePath
    dependencies: Mapping[str, StorePath] = field(default_factory=dict)
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Realisation:
        """Raises `InvalidData`, naming the field."""
        document = _load(text)
        dependencies = _typed(document.get("dependentRealisations", {}), dict, "dependencies")
        signatures = _typed(document.get("signatures", []), list, "signatures")
        return cls(
            id=_identity(document.get("id"), "id"),
            out_path=_path(document.get("outPath"), "outPath"),
            dependencies={
                _identity(key, "dependentRealisations"): _path(
                    value, f"dependentRealisations, {key}"
                )
                for key, value in dependencies.items()
            },
            signatures=tuple(Signature.parse(_typed(s, str, "signatures")) for s in signatures),
        )

    def __str__(self) -> str:
        return _dump({**self._signed(), "signatures": [str(s) for s in self.signatures]})

    @property
    def signed_text(self) -> bytes:
        """What a signature covers."""
        return _dump(self._signed()).encode()

    def _signed(self) -> dict[str, Any]:
        return {
            "dependentRealisations": {
                key: path.base_name for key, path in self.dependencies.items()
            },
            "id": self.id,
            "outPath": self.out_path.base_name,
        }


@dataclass(frozen=True, slots=True)
class BuildTrace:
    """The output `output_name` of `drv_path`; these two are in the file's path, not in it."""

    drv_path: StorePath
    output_name: str
    out_path: StorePath
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def parse(cls, drv_path: StorePath, output_name: str, text: str) -> BuildTrace:
        """Raises `InvalidData`, naming the field."""
        document = _load(text)
        signatures = _typed(document.get("signatures", []), list, "signatures")
        return cls(
            drv_path,
            output_name,
            _path(document.get("outPath"), "outPath"),
            tuple(_structured_signature(signature) for signature in signatures),
        )

    def __str__(self) -> str:
        signatures = []
        for signature in self.signatures:
            name, _, encoded = str(signature).partition(":")
            signatures.append({"keyName": name, "sig": encoded})
        return _dump({"outPath": self.out_path.base_name, "signatures": signatures})

    @property
    def signed_text(self) -> bytes:
        """What a signature covers."""
        key = {"drvPath": self.drv_path.base_name, "outputName": self.output_name}
        return _dump({"key": key, "value": {"outPath": self.out_path.base_name}}).encode()


def _load(text: str) -> dict[str, Any]:
    if len(text) > MAX_CHARACTERS:
        raise InvalidData(f"realisation is longer than {MAX_CHARACTERS} characters")
    try:
        document: dict[str, Any] = _typed(json.loads(text), dict, "the document")
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"realisation is not JSON: {error}") from None
    return document


def _dump(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _typed(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise InvalidData(f"realisation: {where} is {type(value).__name__}, not {kind.__name__}")
    return value


def _identity(value: Any, where: str) -> str:
    text: str = _typed(value, str, where)
    # JSON can spell half a surrogate pair, which no file and no signed text can hold.
    if not text.isprintable():
        raise InvalidData(f"realisation: {where} {text[:100]!r} has characters that no id has")
    return text


def _path(value: Any, where: str) -> StorePath:
    try:
        return StorePath.from_base_name(_typed(value, str, where))
    except InvalidData as error:
        raise InvalidData(f"realisation: {where}: {error}") from None


def _structured_signature(value: Any) -> Signature:
    fields = _typed(value, dict, "signatures")
    name = _typed(fields.get("keyName"), str, "signatures, keyName")
    return Signature.parse(f"{name}:{_typed(fields.get('sig'), str, 'signatures, sig')}")
