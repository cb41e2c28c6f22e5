"""All rules, by the names that findings are told with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tvixstore.compose.config import Config
from tvixstore.compose.lint import daemon, shape, substituters, timing, trust
from tvixstore.compose.mistakes import Mistake

Rule: TypeAlias = Callable[[Config], Iterator[Mistake]]

# Each says nothing of a file that somebody may well have meant: `--strict` fails by them.
RULES: dict[str, Rule] = {
    "open-writes": daemon.open_writes,
    "refused-writes": daemon.refused_writes,
    "plain-tokens": daemon.plain_tokens,
    "needless-tokens": daemon.needless_tokens,
    "missing-file": daemon.missing_file,
    "needless-certificate": daemon.needless_certificate,
    "needless-hedge": daemon.needless_hedge,
    "own-address": daemon.own_address,
    "offline-with-nothing": daemon.offline_with_nothing,
    "none-enabled": substituters.none_enabled,
    "only-optional": substituters.only_optional,
    "unsigned": substituters.unsigned,
    "plain-unsigned": substituters.plain_unsigned,
    "nothing-matches": substituters.nothing_matches,
    "same-cache": substituters.same_cache,
    "plain-credentials": trust.plain_credentials,
    "readable-key": trust.readable_key,
    "believed": trust.believed,
    "signed-unverified": trust.signed_unverified,
    "starved-retry": timing.starved_retry,
    "needless-overall": timing.needless_overall,
    "needless-timeout": timing.needless_timeout,
    "retry-in-retry": timing.retry_in_retry,
    "needless-retry": timing.needless_retry,
    "late-hedge": timing.late_hedge,
    "long-absence": timing.long_absence,
    "unreachable": shape.unreachable,
    "single-member": shape.single_member,
    "same-store": shape.same_store,
    "swapped-cache": shape.swapped_cache,
    "unkept": shape.unkept,
    "forgotten-writes": shape.forgotten_writes,
    "closed-member": shape.closed_member,
    "unrepaired-mirror": shape.unrepaired_mirror,
    "needless-budget": shape.needless_budget,
    "needless-negative": shape.needless_negative,
    "limit-above-others": shape.limit_above_others,
    "chaos": shape.chaos,
}


@dataclass(frozen=True, slots=True)
class Finding(Mistake):
    """Something to warn of, and the rule that found it."""

    rule: str

    def __str__(self) -> str:
        return f"{Mistake.__str__(self)} ({self.rule})"


def lint(config: Config) -> list[Finding]:
    """What to warn of. Nothing of it keeps a daemon from starting."""
    return [
        Finding(mistake.section, mistake.key, mistake.text, name)
        for name, rule in RULES.items()
        for mistake in rule(config)
    ]
