"""Rules about time: what is waited for too long, too briefly, or twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tvixstore.compose.config import Config
from tvixstore.compose.lint.places import Place, nodes, over_members, patience, substituters
from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.model import Substituter
from tvixstore.compose.nodes import NegativeNode, NixNode, RaceNode, RetryNode, TimeoutNode
from tvixstore.compose.values import format_duration as shown

# What is believed to be absent for longer than that was hardly meant to be.
_LONG = 86400.0


def starved_retry(config: Config) -> Iterator[Mistake]:
    """Time that is used up by the first attempt, where there should be several."""
    lookup = config.daemon.lookup_timeout
    for label, substituter in substituters(config):
        if substituter.timeout >= lookup and substituter.retries > 0:
            yield Mistake(
                label,
                "timeout",
                f"{shown(substituter.timeout)} leaves a lookup_timeout of {shown(lookup)} "
                "no second attempt",
            )
    for place in nodes(config):
        if isinstance(place.node, TimeoutNode):
            yield from _starved(place, place.node)


def _starved(place: Place, node: TimeoutNode) -> Iterator[Mistake]:
    whole, key = (node.attempt, "attempt") if node.overall is None else (node.overall, "overall")
    # Each attempt gets as long as whatever is nearest to it says.
    attempt = None if node.overall is None else node.attempt
    repeats = False
    for below in place.below():
        if isinstance(below.node, RetryNode):
            repeats = repeats or below.node.attempts > 1
        elif repeats and isinstance(below.node, TimeoutNode):
            attempt = min(below.node.attempt, attempt or below.node.attempt)
        elif repeats and isinstance(below.node, NixNode):
            attempt = min(below.node.timeout, attempt or below.node.timeout)
    if repeats and attempt is not None and whole <= attempt:
        yield place.says(
            key,
            f"{shown(whole)} around a retry leaves its attempts of {shown(attempt)} no second "
            "one: put the timeout inside the retry",
        )


def needless_overall(config: Config) -> Iterator[Mistake]:
    for place in nodes(config):
        node = place.node
        if (
            isinstance(node, TimeoutNode)
            and node.overall is not None
            and not place.graph.repeats(place.kind, node.inner)
        ):
            yield place.says(
                "overall",
                "has no retry below it: there is one attempt, and the shorter time counts",
            )


def needless_timeout(config: Config) -> Iterator[Mistake]:
    """A timeout in another one that is over first."""
    for place in nodes(config):
        if not isinstance(place.node, TimeoutNode):
            continue
        for below in place.below():
            if isinstance(below.node, RetryNode):
                break
            if isinstance(below.node, TimeoutNode) and below.node.attempt >= place.node.attempt:
                yield below.says(
                    "attempt",
                    f'is never reached: "{place.name}" around it gives up after '
                    f"{shown(place.node.attempt)}",
                )


def retry_in_retry(config: Config) -> Iterator[Mistake]:
    for place in nodes(config):
        if isinstance(place.node, RetryNode):
            for below in place.below():
                if isinstance(below.node, RetryNode):
                    times = place.node.attempts * below.node.attempts
                    yield place.says(
                        "inner",
                        f'"{below.name}" below it is a retry, too: what is down is asked '
                        f"{times} times; keep one of the two",
                    )
                    break


def needless_retry(config: Config) -> Iterator[Mistake]:
    for place in nodes(config):
        if isinstance(place.node, RetryNode):
            if place.node.attempts == 1:
                yield place.says("attempts", "is 1: nothing is repeated; take the node out")
            elif place.node.min_delay > place.node.max_delay:
                yield place.says(
                    "min_delay",
                    f"is longer than max_delay, {shown(place.node.max_delay)}: that one counts",
                )


def late_hedge(config: Config) -> Iterator[Mistake]:
    """A delay after which those who were asked before have given up anyhow."""
    lookup = config.daemon.lookup_timeout
    for place, members in over_members(config):
        hedge = getattr(place.node, "hedge", 0.0)
        if isinstance(place.node, RaceNode) and isinstance(hedge, float) and len(members) > 1:
            longest = max(patience(member) for member in members)
            if place.kind == "path_infos":
                longest = min(longest, lookup)
            if hedge >= longest:
                yield place.says("hedge", _late(hedge, longest))
    hedge = config.daemon.hedge
    if not isinstance(hedge, float) or not hedge:
        return
    classes: defaultdict[int, list[float]] = defaultdict(list)
    for _, substituter in substituters(config):
        classes[substituter.priority].append(_longest(substituter))
    raced = [max(times) for times in classes.values() if len(times) > 1]
    if raced and hedge >= (longest := min(max(raced), lookup)):
        yield Mistake("[daemon]", "hedge", _late(hedge, longest))


def _late(hedge: float, longest: float) -> str:
    return (
        f"{shown(hedge)} is never over in time: whoever is asked has {shown(longest)} to answer, "
        "and who fails is followed at once"
    )


def _longest(substituter: Substituter) -> float:
    """Seconds that a lookup takes at most, pauses apart."""
    return substituter.timeout * (substituter.retries + 1)


def long_absence(config: Config) -> Iterator[Mistake]:
    """What is believed to be absent for days."""
    text = "is more than a day: what was absent once stays so, though others have it long since"
    if config.daemon.negative_ttl > _LONG:
        yield Mistake("[daemon]", "negative_ttl", text)
    for place in nodes(config):
        if isinstance(place.node, NegativeNode) and place.node.ttl > _LONG:
            yield place.says("ttl", text)
