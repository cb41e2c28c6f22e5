"""Coverage-guided fuzzing of the same targets, by atheris: `make fuzz`.

    make fuzz                               every target in turn
    make fuzz TARGET=narinfo SECONDS=600    one of them, for longer
    python -m tests.fuzz narinfo FILE       that target on that input, without a fuzzer

Each target runs in a process of its own, on a corpus that is kept in `.fuzz/corpus` and begins with
its seeds. What is found is written to `.fuzz/found`, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / ".fuzz"
# Seconds that one input may take, and MiB that the process may have.
_SLOW, _MEMORY = 10, 2048
_LONGEST = 1 << 14


def fuzz(name: str, seconds: int) -> bool:
    """Whether the target did nothing wrong for so long, which it says."""
    corpus, found = KEPT / "corpus" / name, KEPT / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    for seed in TARGETS[name].seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:40]).write_bytes(seed)
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(corpus)]
    command += [f"-max_total_time={seconds}", f"-timeout={_SLOW}", f"-rss_limit_mb={_MEMORY}"]
    command += [f"-max_len={_LONGEST}", f"-artifact_prefix={found}/{name}-"]
    command += ["-print_final_stats=1"]
    if TARGETS[name].words:
        words = KEPT / f"{name}.words"
        words.write_text("".join(map(_quoted, TARGETS[name].words)))
        command.append(f"-dict={words}")
    before = set(found.iterdir())
    log = KEPT / f"{name}.log"
    with log.open("wb") as file:
        # Twice the time: the seeds are run first, and what is slow is to end by itself.
        done = subprocess.run(
            command, cwd=ROOT, env=_environment(), stderr=file, timeout=2 * seconds + 120
        )
    new = [file.relative_to(ROOT) for file in sorted(set(found.iterdir()) - before)]
    text = log.read_text(errors="replace")
    inputs = re.search(r"number_of_executed_units: (\d+)", text)
    print(f"{name}: {inputs[1] if inputs else 'no'} inputs in {seconds} s", flush=True)
    if done.returncode or new:
        print(text[-4000:], f"the whole log: {log.relative_to(ROOT)}", sep="\n")
    for each in new:
        print(f"{name}: WRONG. Again: python -m tests.fuzz {name} {each}", flush=True)
    return done.returncode == 0 and not new


def _quoted(word: bytes) -> str:
    return f'"{"".join(f"{chr(92)}x{byte:02x}" for byte in word[:60])}"\n'


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", nargs="?", choices=list(TARGETS), metavar="TARGET")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    if given.file is not None:
        taken = TARGETS[given.target].check(given.file.read_bytes())
        print("taken" if taken else "refused, as it may be")
        return 0
    names = [given.target] if given.target else list(TARGETS)
    wrong = [name for name in names if not fuzz(name, given.seconds)]
    print(f"{len(names)} targets, {len(wrong)} of them wrong: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
