"""narinfo, warm: 1,000 paths in the store, asked for over 32 connections; with tokens, too."""

from __future__ import annotations

from bench.caches import digits_of, small_paths, write_cache
from bench.harness import RUNS, Row, load, median, ratio, server, warm_daemon, workspace

_PATHS, _CONNECTIONS, _SECONDS = 1000, 32, 2.0
_TOKEN = "token-of-the-bench"
_OPEN, _GUARDED, _CEILING = "", "with tokens ", "ceiling "


async def measure() -> list[Row]:
    samples: dict[str, list[float]] = {}
    paths = small_paths(_PATHS)
    async with workspace() as folder:
        cache = write_cache(folder / "cache", paths)
        targets, digits = [path.narinfo_target for path in paths], digits_of(paths)
        async with (
            warm_daemon(folder / "daemon", cache, digits) as daemon,
            warm_daemon(folder / "guarded", cache, digits, _TOKEN) as guarded,
            server("constant", paths[-1].text.decode()) as ceiling,
        ):
            for _ in range(RUNS):
                for name, target, token in (
                    (_OPEN, daemon, None),
                    (_GUARDED, guarded, _TOKEN),
                    (_CEILING, ceiling, None),
                ):
                    done = await load(
                        target,
                        "hammer",
                        targets,
                        connections=_CONNECTIONS,
                        seconds=_SECONDS,
                        token=token,
                    )
                    cost = done.cpu / done.outcome.requests * 1e6
                    samples.setdefault(f"{name}requests/s", []).append(done.requests_per_second)
                    samples.setdefault(f"{name}CPU µs/request", []).append(cost)
    return [
        _row("narinfo, warm", "a constant aiohttp handler", 0.6, samples, _OPEN, _CEILING),
        _row("narinfo, warm, with tokens", "without", 0.95, samples, _GUARDED, _OPEN),
    ]


def _row(
    work: str, other: str, least: float, samples: dict[str, list[float]], what: str, against: str
) -> Row:
    units = ("requests/s", "CPU µs/request")
    rates, costs = (samples[f"{what}{unit}"] for unit in units)
    their_rates, their_costs = (samples[f"{against}{unit}"] for unit in units)
    reached = ratio(rates, their_rates)
    return Row(
        work,
        f"≥ {least:g} × {other}",
        f"{reached:.2f} × ({median(rates):,.0f}/s; by CPU {ratio(their_costs, costs):.2f} ×)",
        reached >= least,
        {f"{name}{unit}": samples[f"{name}{unit}"] for name in (what, against) for unit in units},
    )
