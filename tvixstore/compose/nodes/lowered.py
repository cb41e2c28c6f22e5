"""The nodes that only lowering makes: what the short form and `[daemon]` mean, as a graph."""

from __future__ import annotations

from typing import ClassVar, Literal

from tvixstore.compose.key_types import ConfigPath, Globs, Keys, NodeName
from tvixstore.compose.nodes.base import Node, Reference


class OptionalNode(Node):
    """Stands for a breaker's node that may be down without failing a lookup over HTTP."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["optional"] = "optional"
    inner: Reference
    # What responses call it.
    name: NodeName


class NamesNode(Node):
    """Stands for a substituter of which only some names are asked for."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["names"] = "names"
    inner: Reference
    only: Globs = ()
    but: Globs = ()


class NothingNode(Node):
    """Has nothing, in place of what is elsewhere while `offline`."""

    type: Literal["nothing"] = "nothing"


class CountersigningNode(Node):
    """Signs what goes out of `inner`, and what is put: `sign_with` in `[daemon]`."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["countersigning"] = "countersigning"
    inner: Reference
    keyfile: ConfigPath


class SignatureRequiredNode(Node):
    """Takes only puts that one of the keys signed: `require_signature` in `[daemon]`."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["signature-required"] = "signature-required"
    inner: Reference
    public_keys: Keys
