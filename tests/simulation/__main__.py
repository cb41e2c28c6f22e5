"""`python -m tests.simulation SEED…` runs those worlds again, and says what they did wrong."""

from __future__ import annotations

import sys

from tests.simulation.copies import simulate_copies
from tests.simulation.paths import simulate_paths
from tests.simulation.world import simulate
from tests.support.virtual_clock import run


def main() -> int:
    broken = []
    for seed in map(int, sys.argv[1:]):
        broken += run(simulate(seed)).broken + run(simulate_paths(seed))
        broken += run(simulate_copies(seed))
    for line in broken:
        sys.stdout.write(f"{line}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
