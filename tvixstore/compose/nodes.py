"""The node types of a composition: one model each, as `type = …` names them.

The short form is lowered to these, and there is no other way to build anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tvixstore.compose.model import (
    LATER,
    BinaryCacheUrl,
    ConfigPath,
    Connection,
    Duration,
    Globs,
    GrpcUrl,
    HedgeDelay,
    Keys,
    NodeName,
    PositiveCount,
    PositiveDuration,
    Rate,
    Section,
    Size,
    Store,
)
from tvixstore.compose.script import FAULTS, format_step, parse_step
from tvixstore.compose.values import quote, split_url
from tvixstore.policy.quorum import parse_quorum

# The kinds of services, as a graph calls them.
Kind = Literal["blobs", "directories", "path_infos"]


def _reference(value: object) -> object:
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"{quote(value)} is not a node's name or a URL: write a string")


# The name of a node, of the same kind except where a key says which kind; or a service URL.
Reference = Annotated[str, BeforeValidator(_reference)]
Members = Annotated[tuple[Reference, ...], Field(strict=False, min_length=1)]
# A line of chaos' script, kept as it was written.
Step = Annotated[str, BeforeValidator(lambda value: format_step(*parse_step(value)))]
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


class MemoryNode(Node):
    """In memory, as long as the process lives."""

    type: Literal["memory"] = "memory"


class MemoryPathInfoNode(MemoryNode, WithContent):
    pass


class LocalNode(Store, Node):
    """On this machine's disk. Nodes with the same path share one engine."""

    type: Literal["local"] = "local"
    path: ConfigPath


class LocalPathInfoNode(LocalNode, WithContent):
    """Path infos on this machine's disk, with the services that hold their content."""


def _object_store_url(value: object) -> str:
    example = 'write "file:///absolute/path" or "memory:///"'
    if not isinstance(value, str):
        raise ValueError(f"{quote(value)} is not a URL: {example}")
    parts = split_url(value)
    if parts.scheme not in ("file", "memory") and "://" in value:
        raise ValueError(f'the scheme "{parts.scheme}" {LATER}: {example}')
    if "://" not in value or parts.query or parts.fragment:
        raise ValueError(f"{quote(value)} is not a URL that this takes: {example}")
    if parts.scheme == "memory" and (parts.netloc or parts.path not in ("", "/")):
        raise ValueError(f'{quote(value)}: memory has no places: write "memory:///"')
    if parts.scheme == "file" and (parts.netloc not in ("", "localhost") or len(parts.path) < 2):
        raise ValueError(f'{quote(value)} names no folder: write "file:///absolute/path"')
    return value


def _object_store_options(value: object) -> object:
    if value:
        raise ValueError("has nothing in it that file:// and memory:// know: write {}")
    return value


class ObjectStoreNode(Node):
    """A bucket in the layout of tvix and snix, which may be shared with them."""

    type: Literal["objectstore"] = "objectstore"
    object_store_url: Annotated[str, BeforeValidator(_object_store_url)]
    object_store_options: Annotated[dict[str, str], BeforeValidator(_object_store_options)] = {}
    avg_chunk_size: Annotated[Size, Field(ge=4 << 10, le=2 << 20)] = 256 << 10


class GrpcNode(Node):
    """Another daemon: tvix's, snix's or one of ours."""

    type: Literal["grpc"] = "grpc"
    url: GrpcUrl
    # "auto" speaks to either, at the cost of one more request.
    protocol: Literal["auto", "tvix", "snix"] = "auto"
    timeout: PositiveDuration = 30.0
    # The token that it is shown.
    token_file: ConfigPath | None = None
    # Who may have signed its certificate, beside the system's authorities.
    ca_file: ConfigPath | None = None
    # Our own certificate and its key, where it lets in nobody without one.
    client_cert: ConfigPath | None = None
    client_key: ConfigPath | None = None


class GrpcPathInfoNode(GrpcNode, WithContent):
    pass


class CacheNode(Node):
    """Asks `near`, then `far`, and keeps in `near` what `far` had."""

    references: ClassVar[tuple[str, ...]] = ("near", "far")
    aliases: ClassVar[Mapping[str, str]] = {"local": "near", "remote": "far"}

    type: Literal["cache", "combined"] = "cache"
    near: Reference
    far: Reference


class RaceNode(Node):
    """Asks the members together, each `hedge` after the one before; the first right answer wins."""

    references: ClassVar[tuple[str, ...]] = ("members",)

    type: Literal["race"] = "race"
    members: Members
    hedge: HedgeDelay = 0.0
    # Of so many races, at most, one more member is asked because of a delay.
    budget: Annotated[Share, Field(gt=0)] = 0.1


class FallbackNode(Node):
    """Asks the members in order."""

    references: ClassVar[tuple[str, ...]] = ("members",)

    type: Literal["fallback"] = "fallback"
    members: Members


class VerifyNode(Node):
    """Believes nothing of what `inner` says before it was checked here."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["verify"] = "verify"
    inner: Reference


class VerifyPathInfoNode(VerifyNode, WithContent):
    """Takes path infos that one of `public_keys` signed, if any are given, and whose content it
    rendered and hashed itself."""

    public_keys: Keys = ()


class ReadOnlyNode(Node):
    """Takes no writes."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["readonly"] = "readonly"
    inner: Reference


class LruNode(Node):
    """The path infos that were used last, in memory."""

    type: Literal["lru"] = "lru"
    capacity: Annotated[int, Field(ge=1, le=1 << 40)]


class NixNode(Connection, WithContent):
    """A binary cache that speaks HTTP, or a folder in the same form."""

    type: Literal["nix"] = "nix"
    base_url: BinaryCacheUrl
    # Absent: nothing is verified but hashes.
    public_keys: Keys | None = None


class TimeoutNode(Node):
    """Bounds short calls, and the wait for a stream's first item; never a stream."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["timeout"] = "timeout"
    inner: Reference
    attempt: PositiveDuration = 5.0
    # Of a call with all that is repeated below; `attempt` is then each attempt's.
    overall: PositiveDuration | None = None


class RetryNode(Node):
    """Asks again where an answer could not be had."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["retry"] = "retry"
    inner: Reference
    attempts: PositiveCount = 3
    min_delay: Duration = 0.1
    max_delay: Duration = 2.0


class BreakerNode(Node):
    """Asks nothing for a while of what failed several times in a row."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["breaker"] = "breaker"
    inner: Reference
    failures: PositiveCount = 5
    open: PositiveDuration = 30.0


class OptionalNode(Node):
    """Stands for a breaker's node that may be down without failing a lookup over HTTP."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["optional"] = "optional"
    inner: Reference
    # What responses call it.
    name: NodeName


class KeyfileSigningNode(Node):
    """Signs what is put into `inner`."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["keyfile-signing"] = "keyfile-signing"
    inner: Reference
    # A secret key, as `name:base64`.
    keyfile: ConfigPath


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


class NegativeNode(Node):
    """Remembers for a while what was absent."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["negative"] = "negative"
    inner: Reference
    ttl: Duration = 60.0
    capacity: PositiveCount = 100_000


class LimitNode(Node):
    """Asks no more of `inner`, a store itself, than so many calls and bytes."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["limit"] = "limit"
    inner: Reference
    concurrency: PositiveCount | None = None
    rate: Rate | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.concurrency is None and self.rate is None:
            raise ValueError("limits nothing: write concurrency, rate, or both")
        return self


class MirrorNode(Node):
    """Keeps the same in all members; of a write, `quorum` of them have to take it."""

    references: ClassVar[tuple[str, ...]] = ("members",)

    type: Literal["mirror"] = "mirror"
    members: Members
    quorum: int | str = "all"
    # Whether members get what they are found to lack.
    repair: bool = True

    @field_validator("quorum", mode="before")
    @classmethod
    def _check_quorum(cls, value: object, info: ValidationInfo) -> object:
        members = info.data.get("members")
        if members is not None:
            try:
                parse_quorum(value, len(members))
            except ValueError as error:
                raise ValueError(f"{quote(value)} is no quorum of these members: {error}") from None
        return value

    def enough(self) -> int:
        """The quorum as a number."""
        return parse_quorum(self.quorum, len(self.members))


class ShardNode(Node):
    """Spreads what there is over the members, each by its name and weight."""

    references: ClassVar[tuple[str, ...]] = ("members",)

    type: Literal["shard"] = "shard"
    members: Members
    # Twice the weight is twice the share; 1 where a member is not named.
    weights: dict[str, Annotated[float, Field(strict=False)]] = {}

    @field_validator("weights", mode="after")
    @classmethod
    def _check_weights(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        for name, weight in value.items():
            if name not in info.data.get("members", value):
                raise ValueError(f"{quote(name)} is none of the members")
            if not 0 < weight < 1e9:
                raise ValueError(f"{quote(name)} has to weigh more than 0, and less than 1e9")
        return value

    @field_validator("members", mode="after")
    @classmethod
    def _check_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, name in enumerate(value, 1):
            if "://" in name:
                raise ValueError(
                    f"#{number}: {quote(name)} is a URL, and a shard goes by its members' names, "
                    "for as long as there is anything in them: give it a table with a name"
                )
            if name in value[: number - 1]:
                raise ValueError(f"#{number}: {quote(name)} is a member already")
        return value


class ChaosNode(Node):
    """Lets calls of `inner` go wrong, by a script, or each by chance, for drills."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["chaos"] = "chaos"
    inner: Reference
    seed: int | str = 0
    script: Annotated[tuple[Step, ...], Field(strict=False)] = ()
    # The average; a delay is between nothing and twice as much.
    latency: Duration = 0.0
    error_rate: Share = 0.0
    absent_rate: Share = 0.0
    truncate_rate: Share = 0.0
    corrupt_rate: Share = 0.0
    stall_rate: Share = 0.0
    disconnect_rate: Share = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.script and (self.latency or self.rates()):
            raise ValueError("has a script, and rates or a latency: keep one of the two")
        if sum(self.rates().values()) > 1 + 1e-9:
            raise ValueError("has rates of more than 1 together: no call can meet more than one")
        return self

    def rates(self) -> dict[str, float]:
        """The rates that are not 0, by kind of fault."""
        rates = {kind: getattr(self, f"{kind}_rate", 0.0) for kind in FAULTS}
        return {kind: rate for kind, rate in rates.items() if rate}


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


_ANYWHERE: dict[str, type[Node]] = {
    "memory": MemoryNode,
    "local": LocalNode,
    "grpc": GrpcNode,
    "cache": CacheNode,
    "race": RaceNode,
    "fallback": FallbackNode,
    "verify": VerifyNode,
    "readonly": ReadOnlyNode,
    "timeout": TimeoutNode,
    "retry": RetryNode,
    "breaker": BreakerNode,
    "negative": NegativeNode,
    "limit": LimitNode,
    "mirror": MirrorNode,
    "shard": ShardNode,
    "chaos": ChaosNode,
}
# One row a `type =` that a table may have, a kind of service each. `optional`, `names`, `nothing`,
# `countersigning` and `signature-required` are not among them: only lowering makes those.
NODE_TYPES: dict[Kind, dict[str, type[Node]]] = {
    "blobs": {**_ANYWHERE, "combined": CacheNode, "objectstore": ObjectStoreNode},
    "directories": _ANYWHERE,
    "path_infos": {
        **_ANYWHERE,
        "memory": MemoryPathInfoNode,
        "local": LocalPathInfoNode,
        "grpc": GrpcPathInfoNode,
        "verify": VerifyPathInfoNode,
        "nix": NixNode,
        "lru": LruNode,
        "keyfile-signing": KeyfileSigningNode,
    },
}

_LOCAL_INSTEAD = 'is not ours: write type = "local" and path = "./state" instead'
# What is to be said of types that are documented, here or upstream, and that we do not have.
REFUSED_TYPES: dict[Kind, dict[str, str]] = {
    "blobs": {},
    "directories": {
        "redb": _LOCAL_INSTEAD,
        "bigtable": _LOCAL_INSTEAD,
        "objectstore": (
            f'{LATER} for directories: write type = "local" and path = "./state" instead'
        ),
    },
    "path_infos": {
        "redb": _LOCAL_INSTEAD,
        "bigtable": _LOCAL_INSTEAD,
    },
}
