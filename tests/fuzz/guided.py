"""One target under atheris, in this process: `python -m tests.fuzz.guided TARGET CORPUS …`."""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    name = sys.argv.pop(1)
    # Comparisons of strings guide it too. (Those in regular expressions would: but what stands in
    # for compiled ones lacks half of their methods.)
    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=["tvixstore", "tomllib"]):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]

    def check(data: bytes) -> None:
        target.check(data)

    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
