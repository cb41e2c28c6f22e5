"""`python -m tests.simulation [--trace] [WORLD] SEED…` has those worlds again.

It says what they did wrong, with --trace also what becomes of each call that a member meets. A SEED
may be a range, as in 1000-2000.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext

from tests.simulation.worlds import WORLDS, broken_in, traced


def _seeds(words: list[str]) -> Iterator[int]:
    for word in words:
        first, _, last = word.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "--trace"]
    names = [words.pop(0)] if words and words[0] in WORLDS else list(WORLDS)
    failed = False
    with traced(_say) if "--trace" in sys.argv else nullcontext():
        for seed in _seeds(words):
            for name in names:
                for line in broken_in(name, seed):
                    failed = True
                    _say(line)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
