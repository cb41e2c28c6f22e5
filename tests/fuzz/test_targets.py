"""Every parser against mutants of what is valid; coverage-guided fuzzing is `make fuzz`.

The mutants are the same ones each time, and few: this shows that nothing has become worse.
"""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.mutants import mutants
from tests.fuzz.target import Target, nothing_more
from tests.fuzz.targets import TARGETS
from tvixstore.errors import InvalidData

# What a parser may allocate for each byte that it was given, on top of its own.
_A_BYTE = 200


def hunt(target: Target[Any], examples: int) -> None:
    """Raises what `target` does wrong with one of so many mutants, the smallest that was found."""

    @settings(
        max_examples=examples,
        derandomize=True,
        report_multiple_bugs=False,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutants(target))
    def holds(data: bytes) -> None:
        tracemalloc.start()
        try:
            target.check(data)
            _, used = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        allowed = target.memory + _A_BYTE * len(data)
        assert used <= allowed, f"{used} bytes were allocated for {len(data)}"

    holds()


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_is_taken_or_refused_and_at_least_one_is_taken(name: str) -> None:
    target = TARGETS[name]
    taken = [target.check(seed) for seed in target.seeds]
    assert any(taken) or name in NEVER_TAKEN


@pytest.mark.parametrize("name", TARGETS)
def test_mutants_are_refused_as_documented_or_make_sense(name: str) -> None:
    hunt(TARGETS[name], 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_mutants_are_refused_as_documented_or_make_sense(name: str) -> None:
    hunt(TARGETS[name], 1000)


# Their digest is in what they are asked for, and no mutant can have it.
NEVER_TAKEN = {"chunk", "bucket-chunk"}
SEEDS = (b"\x05hello", b"\x03abc")


def _length_prefixed(data: bytes) -> bytes:
    """A parser without a fault: a byte that says how many follow."""
    if not data or len(data) - 1 != data[0]:
        raise InvalidData("not as long as it says")
    return data[1:]


def _reads_beyond_the_end(data: bytes) -> bytes:
    return bytes(data[at] for at in range(1, data[0] + 1)) if data else b""


def _believes_what_is_announced(data: bytes) -> bytes:
    announced = int.from_bytes(data[:4], "little")
    room = bytearray(8 << 20 if announced > 1 << 20 else 0)
    return _length_prefixed(data + room)[: len(data)]


def _ignores_what_follows(data: bytes) -> bytes:
    return _length_prefixed(data[: data[0] + 1] if data else data)


def _write(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def _canonical(data: bytes, value: bytes) -> None:
    assert _write(value) == data


def test_a_parser_without_a_fault_passes() -> None:
    hunt(Target(_length_prefixed, SEEDS, _canonical), 100)


@pytest.mark.parametrize(
    ("parse", "law", "found"),
    [
        (_reads_beyond_the_end, nothing_more, IndexError),
        (_believes_what_is_announced, nothing_more, AssertionError),
        (_ignores_what_follows, _canonical, AssertionError),
    ],
)
def test_a_planted_fault_is_found(parse: Any, law: Any, found: type[Exception]) -> None:
    with pytest.raises(found):
        hunt(Target(parse, SEEDS, law, memory=1 << 20), 100)


def test_what_the_guided_fuzzer_found_can_be_had_again(tmp_path: Path) -> None:
    file = tmp_path / "found"
    command = [sys.executable, "-m", "tests.fuzz", "narinfo", str(file)]
    for data, said in ((b"\xff", "refused, as it may be"), (TARGETS["narinfo"].seeds[0], "taken")):
        file.write_bytes(data)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr
