"""The nodes over one other: one policy each."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tvixstore.compose.key_types import (
    ConfigPath,
    Duration,
    Keys,
    PositiveCount,
    PositiveDuration,
    Rate,
)
from tvixstore.compose.nodes.base import Node, Reference, Share, WithContent
from tvixstore.compose.script import FAULTS, format_step, parse_step

# A line of chaos' script, kept as it was written.
Step = Annotated[str, BeforeValidator(lambda value: format_step(*parse_step(value)))]


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


class KeyfileSigningNode(Node):
    """Signs what is put into `inner`."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    type: Literal["keyfile-signing"] = "keyfile-signing"
    inner: Reference
    # A secret key, as `name:base64`.
    keyfile: ConfigPath


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
