"""The nodes over several others: who is asked when, and who gets what is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from tvixstore.compose.key_types import HedgeDelay
from tvixstore.compose.nodes.base import Members, Node, Reference, Share
from tvixstore.compose.values import quote
from tvixstore.policy.quorum import parse_quorum


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
