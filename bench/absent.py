"""800 narinfos that nobody has, over five upstreams at 20 ms, as Nix asks before a build."""

from __future__ import annotations

from pathlib import Path

from bench.fakes import Fake
from bench.harness import RTT, RUNS, Row, Server, fakes, load, median, ratio, workspace
from bench.upstreams import absent_targets, over

_NARINFOS, _UPSTREAMS = 800, 5
# As many as Nix opens (`http-connections`).
_CONNECTIONS = 25


async def measure() -> list[Row]:
    targets = absent_targets(_NARINFOS)
    took: dict[str, list[float]] = {"all": [], "one": [], "straight": []}
    costs: list[float] = []
    async with workspace() as folder, fakes(*[Fake(None, RTT)] * _UPSTREAMS) as sources:
        for number in range(RUNS):
            seconds, cost = await _through(folder / f"all-{number}", sources, targets)
            took["all"].append(seconds)
            costs.append(cost / _NARINFOS * 1e6)
            seconds, _ = await _through(folder / f"one-{number}", sources[:1], targets)
            took["one"].append(seconds)
            straight = await load(sources[0], "each", targets, connections=_CONNECTIONS, status=404)
            took["straight"].append(straight.outcome.seconds)
    times = ratio(took["all"], took["one"])
    return [
        Row(
            f"{_NARINFOS} absent narinfos over {_UPSTREAMS} upstreams at 20 ms, "
            f"{_CONNECTIONS} in flight",
            "≤ 1.3 × over the slowest alone",
            f"{times:.2f} × ({median(took['all']):.2f} s; {median(costs):,.0f} µs of CPU a "
            f"narinfo; {ratio(took['all'], took['straight']):.2f} × straight from one)",
            times <= 1.3,
            {
                "seconds over all": took["all"],
                "seconds over one": took["one"],
                "seconds straight from one": took["straight"],
                "CPU µs/narinfo of the daemon over all": costs,
            },
        )
    ]


async def _through(folder: Path, sources: list[Server], targets: list[str]) -> tuple[float, float]:
    """Seconds, and seconds of the daemon's processor time, until all were answered.

    By a daemon that is new, but has answered a few: it is connected to its upstreams.
    """
    async with over(folder, [source.url for source in sources]) as daemon:
        others = [target.replace("/0", "/1") for target in targets if target.startswith("/0")]
        await load(daemon, "each", others, connections=_CONNECTIONS, status=404)
        done = await load(daemon, "each", targets, connections=_CONNECTIONS, status=404)
        return done.outcome.seconds, done.cpu
