"""What extras are called: the same in every cache, in URLs as in our table. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from tvixstore.errors import InvalidData
from tvixstore.nix import StorePath

_DRV = ".drv"
_REALISATION = re.compile(r"sha256:[0-9a-f]{64}![0-9a-zA-Z+\-._?=]{1,211}", re.ASCII)
_OUTPUT = re.compile(r"[0-9a-zA-Z+\-._?=]{1,211}", re.ASCII)
_BUILD_ID = re.compile(r"([0-9a-f]{40})(?:\.debug)?", re.ASCII)


class Kind(Enum):
    """The kinds of extras, by the folder that they are in."""

    REALISATION = "realisations"
    BUILD_TRACE = "build-trace-v2"
    LOG = "log"
    DEBUG_INFO = "debuginfo"


@dataclass(frozen=True, slots=True)
class ExtraName:
    """One extra: `path` is where it is in any cache, relative to its root."""

    kind: Kind
    path: str

    @classmethod
    def realisation(cls, identity: str) -> ExtraName:
        """Of `sha256:<hex>!<output>`; raises `InvalidData`, as all of these do."""
        if not _REALISATION.fullmatch(identity):
            raise InvalidData(f"{identity[:100]!r} is not `sha256:<64 hex digits>!<output>`")
        return cls(Kind.REALISATION, f"{Kind.REALISATION.value}/{identity}.doi")

    @classmethod
    def build_trace(cls, derivation: str, output: str) -> ExtraName:
        """Of an output of the derivation with that base name."""
        path = _derivation(derivation)
        if not _OUTPUT.fullmatch(output):
            raise InvalidData(f"{output[:100]!r} is not the name of an output")
        return cls(Kind.BUILD_TRACE, f"{Kind.BUILD_TRACE.value}/{path.base_name}/{output}.doi")

    @classmethod
    def log(cls, derivation: str) -> ExtraName:
        """Of the build of the derivation with that base name."""
        return cls(Kind.LOG, f"{Kind.LOG.value}/{_derivation(derivation).base_name}")

    @classmethod
    def debug_info(cls, build_id: str) -> ExtraName:
        """Of the executable with that build id; `.debug` behind it means the same."""
        match = _BUILD_ID.fullmatch(build_id)
        if match is None:
            raise InvalidData(f"{build_id[:100]!r} is not a build id of 40 hex digits")
        return cls(Kind.DEBUG_INFO, f"{Kind.DEBUG_INFO.value}/{match[1]}.debug")

    @property
    def key(self) -> bytes:
        """What it is kept under."""
        return self.path.encode()

    @property
    def identity(self) -> str:
        """Of a realisation: what its document has to call itself."""
        return self.path.partition("/")[2].removesuffix(".doi")

    @property
    def output(self) -> tuple[StorePath, str]:
        """Of a build trace: the derivation, and the name of its output."""
        _, derivation, output = self.path.split("/")
        return StorePath.from_base_name(derivation), output.removesuffix(".doi")

    def __str__(self) -> str:
        return self.path


def _derivation(base_name: str) -> StorePath:
    path = StorePath.from_base_name(base_name)
    if not path.name.endswith(_DRV):
        raise InvalidData(f"{base_name[:100]!r} is not the base name of a derivation")
    return path
