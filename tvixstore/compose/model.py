"""What may stand in a compose file's own sections: one model a section, one field a key.

A model checks a key at a time; what two keys have to do with each other is in `load`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationInfo,
)

from tvixstore.access import Right, Rights
from tvixstore.compose.values import (
    GRPC_EXAMPLE,
    GRPC_SCHEMES,
    Address,
    check_grpc_url,
    format_duration,
    format_size,
    is_grpc_url,
    is_loopback,
    parse_address,
    parse_duration,
    parse_name,
    parse_path,
    parse_size,
    quote,
    split_url,
)
from tvixstore.errors import InvalidData
from tvixstore.nix import PublicKey
from tvixstore.policy.hedge import LEARNED

# The version that a schema is for says which of the documented keys it takes.
LATER = "is not yet supported in this version"


def _folder(info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", "."))


def _address(value: object, info: ValidationInfo) -> Address:
    return value if isinstance(value, Address) else parse_address(value, _folder(info))


def _path(value: object, info: ValidationInfo) -> Path:
    return _folder(info) / value if isinstance(value, Path) else parse_path(value, _folder(info))


def _duration(value: object) -> float:
    return value if isinstance(value, float) else parse_duration(value)


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than nothing")
    return value


def _hedge(value: object) -> float | str:
    if value == LEARNED:
        return LEARNED
    if isinstance(value, str) and value.startswith("p") and value[1:].isdecimal():
        raise ValueError(f'{quote(value)} is not learned: write "{LEARNED}", or a duration')
    return _duration(value)


def _format_hedge(value: float | str) -> str:
    return value if isinstance(value, str) else format_duration(value)


def _rate(value: object) -> int:
    rate = parse_size(value)
    if rate < 1:
        raise ValueError("is a number of bytes a second, and has to be more than none")
    return rate


def _glob(value: object) -> str:
    if not isinstance(value, str) or not value or "/" in value:
        raise ValueError(f'{quote(value)} matches no name: write a glob such as "firefox-*"')
    return value


def _public_key(value: object) -> PublicKey:
    if isinstance(value, PublicKey):
        return value
    example = 'write "name:base64", as in nix.conf\'s trusted-public-keys'
    if not isinstance(value, str):
        raise ValueError(f"{quote(value)} is not a public key: {example}")
    try:
        return PublicKey.parse(value)
    except InvalidData as error:
        name, _, rest = value.partition(":")
        if len(rest) > 80:
            # A secret key begins like a public one, and must not end up in a log.
            raise ValueError(f'"{name}:…" is too long for a public key: {example}') from None
        raise ValueError(f"{quote(value)} is not a public key ({error}): {example}") from None


def _url_of(schemes: tuple[str, ...], later: tuple[str, ...] = ()) -> Callable[[object], str]:
    """A validator of URLs with one of `schemes`, that knows which others come `later`."""
    *most, last = [f'"{scheme}://…"' for scheme in schemes]
    example = f"{', '.join(most)} or {last}"

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{quote(value)} is not a URL: write {example}")
        parts = split_url(value)
        if parts.scheme in later or any(parts.scheme.startswith(f"{name}+") for name in later):
            raise ValueError(f'the scheme "{parts.scheme}" {LATER}: write {example}')
        if parts.scheme not in schemes or not value[len(parts.scheme) :].startswith("://"):
            raise ValueError(f"{quote(value)} is not a URL that this takes: write {example}")
        if parts.query or parts.fragment:
            raise ValueError(
                f"{quote(value)} has a query or a fragment: "
                "settings such as the priority are keys of their own here"
            )
        if parts.scheme == "file":
            if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
                raise ValueError(f'{quote(value)} names no folder: write "file:///absolute/path"')
        elif not parts.hostname:
            raise ValueError(f"{quote(value)} names no host: write {example}")
        return value

    return check


_binary_cache_url = _url_of(("http", "https", "file", *GRPC_SCHEMES), later=("s3",))


def _grpc_url(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{quote(value)} is not a URL: {GRPC_EXAMPLE}")
    check_grpc_url(value)
    return value


def _substituter_url(value: object) -> str:
    if isinstance(value, str) and is_grpc_url(value):
        return _grpc_url(value)
    return _binary_cache_url(value)


def _writes(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError(f'{quote(value)} is none of the choices: write "auto", true or false')


# Serialized, a value is what one would have written: `model_dump(mode="json")` could be a file.
Duration = Annotated[float, BeforeValidator(_duration), PlainSerializer(format_duration)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
HedgeDelay = Annotated[float | str, BeforeValidator(_hedge), PlainSerializer(_format_hedge)]
# Bytes a second.
Rate = Annotated[int, BeforeValidator(_rate), PlainSerializer(format_size)]
Globs = Annotated[tuple[Annotated[str, BeforeValidator(_glob)], ...], Field(strict=False)]
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size)]
ListenAddress = Annotated[InstanceOf[Address], BeforeValidator(_address), PlainSerializer(str)]
ConfigPath = Annotated[Path, BeforeValidator(_path)]
Key = Annotated[InstanceOf[PublicKey], BeforeValidator(_public_key), PlainSerializer(str)]
Keys = Annotated[tuple[Key, ...], Field(strict=False)]
NodeName = Annotated[str, BeforeValidator(parse_name)]
BinaryCacheUrl = Annotated[str, BeforeValidator(_url_of(("http", "https", "file"), later=("s3",)))]
GrpcUrl = Annotated[str, BeforeValidator(_grpc_url)]
SubstituterUrl = Annotated[str, BeforeValidator(_substituter_url)]
ProxyUrl = Annotated[str, BeforeValidator(_url_of(("http", "https")))]
Writes = Annotated[bool | Literal["auto"], BeforeValidator(_writes)]
PositiveCount = Annotated[int, Field(ge=1, le=1_000_000)]


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
