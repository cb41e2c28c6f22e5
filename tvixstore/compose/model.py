"""What may stand in a compose file's own sections: one model a section, one field a key.

A model checks a key at a time; what two keys have to do with each other is in `load`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from tvixstore.access import Right, Rights
from tvixstore.compose.key_types import (
    ConfigPath,
    Duration,
    Globs,
    HedgeDelay,
    Keys,
    ListenAddress,
    NodeName,
    PositiveCount,
    PositiveDuration,
    ProxyUrl,
    Rate,
    Size,
    SubstituterUrl,
    Writes,
)
from tvixstore.compose.values import Address, is_loopback


class Section(BaseModel):
    """A table of a compose file, or a node's. Unknown keys are mistakes."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True
    )

    # Keys that are documented, and that this version does not have yet.
    later: ClassVar[frozenset[str]] = frozenset()


class Daemon(Section):
    """`[daemon]`: the listeners, and what concerns all substituters together."""

    grpc: ListenAddress = Address("tcp", "127.0.0.1", 8000)
    http: ListenAddress = Address("tcp", "127.0.0.1", 9000)
    state: ConfigPath = Field(Path("state"), validate_default=True)
    # What our own nix-cache-info says; lower is asked first.
    priority: Annotated[int, Field(ge=0, le=1 << 31)] = 30
    public_keys: Keys = ()
    # Bounds one narinfo over all members and classes.
    lookup_timeout: PositiveDuration = 10.0
    hedge: HedgeDelay = 0.0
    narinfo_ttl: Duration = 3600.0
    negative_ttl: Duration = 60.0
    verify_ahead: Size = 1 << 20
    max_downloads: PositiveCount = 32
    drain_timeout: Duration = 10.0
    # Whether anything may be put; auto: where every listener is of this machine alone.
    writes: Writes = "auto"
    # The certificate chain and its key, both or neither; of clients over gRPC, their authority.
    tls_cert: ConfigPath | None = None
    tls_key: ConfigPath | None = None
    client_ca: ConfigPath | None = None
    # Who may do what, and whether those without a token may read.
    tokens_file: ConfigPath | None = None
    anonymous_read: bool = True
    # Of what is put, one of these has to have signed it.
    require_signature: Keys = ()
    # The secret key that signs what goes out.
    sign_with: ConfigPath | None = None
    # How the NARs that are handed out are compressed.
    nar_compression: Literal["none", "zstd"] = "none"
    # Of the Directories that are built here; "doubled" is what tvix and snix daemons build.
    directory_sizes: Literal["documented", "doubled"] = "documented"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    access_log: bool = False
    # Answers from the store alone.
    offline: bool = False

    def is_local(self) -> bool:
        """Whether nobody but this machine can connect."""
        return all(
            address.kind != "tcp" or is_loopback(address.host) for address in (self.http, self.grpc)
        )

    def takes_writes(self) -> bool:
        """Whether anything may be put: with a tokens_file by whoever has a token for it, otherwise
        by everybody who can connect."""
        if self.writes == "auto":
            return self.tokens_file is not None or self.is_local()
        return self.writes

    def rights_of_strangers(self) -> Rights:
        """What whoever can connect may do without a token."""
        rights: set[Right] = {"read"} if self.anonymous_read else set()
        if self.tokens_file is None:
            rights |= {"write"} if self.takes_writes() else set()
            rights |= {"admin"} if self.is_local() else set()
        return frozenset(rights)


class Store(Section):
    """`[store]`: the local store of the short form."""

    # What was used last longest ago goes, where it gets too much.
    max_size: Size | None = None
    min_free: Size = 1 << 30
    # What nobody read for so long goes too.
    max_age: PositiveDuration | None = None
    # The average; the chunker's bounds follow from it.
    chunk_size: Annotated[Size, Field(ge=4 << 10, le=2 << 20)] = 256 << 10
    compression: Literal["auto", "none"] = "auto"
    durability: Literal["power", "process"] = "power"


class Connection(Section):
    """How an upstream is reached: the keys that a substituter and a `nix` node share."""

    # To response headers, each attempt.
    timeout: PositiveDuration = 5.0
    connect_timeout: PositiveDuration = 2.0
    # No byte for so long breaks a download off.
    stall_timeout: PositiveDuration = 20.0
    # After the first attempt; of a download that breaks off, too.
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    max_connections: PositiveCount = 32
    netrc_file: ConfigPath | None = None
    token_file: ConfigPath | None = None
    # Without it the system's.
    ca_file: ConfigPath | None = None
    # Without it the environment's.
    proxy: ProxyUrl | None = None
    # Bytes a second that are downloaded.
    rate: Rate | None = None


class Substituter(Connection):
    """`[[substituters]]`: one upstream binary cache."""

    url: SubstituterUrl
    # The host where left out; `load` fills it in.
    name: NodeName = ""
    public_keys: Keys = ()
    unsigned: bool = False
    # Lower first; equal ones form a class that is asked together.
    priority: Annotated[int, Field(ge=-(1 << 31), le=1 << 31)] = 40
    optional: bool = False
    enabled: bool = True
    # Failures in a row; 5, or 1 where `optional`.
    breaker_failures: PositiveCount | None = None
    breaker_open: PositiveDuration = 30.0
    # Globs over the name in the narinfo that came back; no match is absent.
    only: Globs = ()
    # What the key is called is a word of Python's, and can only be declared like this.
    __annotations__["except"] = Globs
    locals()["except"] = ()

    @property
    def excepted(self) -> tuple[str, ...]:
        """The value of `except`."""
        globs: tuple[str, ...] = getattr(self, "except")
        return globs
