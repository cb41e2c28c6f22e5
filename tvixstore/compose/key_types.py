"""The types of the keys of a compose file: what is taken for each, and how it is written again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationInfo,
)

from tvixstore.compose.values import (
    GRPC_EXAMPLE,
    GRPC_SCHEMES,
    Address,
    check_grpc_url,
    format_duration,
    format_size,
    is_grpc_url,
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
