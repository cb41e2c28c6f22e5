"""`python -m tests.simulation SEED…` runs those worlds again, and says what they did wrong."""

from __future__ import annotations

import sys

from tests.simulation.world import simulate
from tests.support.virtual_clock import run


def main() -> int:
    broken = [line for seed in sys.argv[1:] for line in run(simulate(int(seed))).broken]
    for line in broken:
        sys.stdout.write(f"{line}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
