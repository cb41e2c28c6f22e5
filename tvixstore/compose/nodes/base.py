"""What every node of a composition is: a table whose keys name other nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from tvixstore.compose.model import Section
from tvixstore.compose.values import quote

# The kinds of services, as a graph calls them.
Kind = Literal["blobs", "directories", "path_infos"]


def _reference(value: object) -> object:
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"{quote(value)} is not a node's name or a URL: write a string")


# The name of a node, of the same kind except where a key says which kind; or a service URL.
Reference = Annotated[str, BeforeValidator(_reference)]
Members = Annotated[tuple[Reference, ...], Field(strict=False, min_length=1)]
# Of something that is counted, or that may happen: from none of it to all of it.
Share = Annotated[float, Field(ge=0, le=1, strict=False)]


class Node(Section):
    """A node of the graph; `type` says which, and its other keys are its own."""

    # The keys whose values name other nodes of the same kind, in the order they are shown.
    references: ClassVar[tuple[str, ...]] = ()
    # The keys whose values name nodes of other kinds, with those kinds.
    content_references: ClassVar[Mapping[str, Kind]] = {}
    # Other names that people know keys by.
    aliases: ClassVar[Mapping[str, str]] = {}

    type: str = ""

    def neighbours(self) -> list[tuple[str, str]]:
        """Key and name of each node of the same kind that this one is built over."""
        found: list[tuple[str, str]] = []
        for key in self.references:
            value = getattr(self, key)
            names = (value,) if isinstance(value, str) else value
            found.extend((key, name) for name in names)
        return found

    def content(self) -> list[tuple[str, Kind, str]]:
        """Key, kind and name of each node of another kind that this one is built over."""
        return [(key, kind, getattr(self, key)) for key, kind in self.content_references.items()]


class WithContent(Node):
    """A node of path infos that knows where the content of its paths is."""

    content_references: ClassVar[Mapping[str, Kind]] = {
        "blob_service": "blobs",
        "directory_service": "directories",
    }

    blob_service: Reference = "root"
    directory_service: Reference = "root"
