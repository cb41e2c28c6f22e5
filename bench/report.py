"""The results as Markdown, for docs/performance.md: `python -m bench.report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    runs = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    print("| work | aim | measured | |\n|---|---|---|---|")
    for run in runs:
        for row in run["rows"]:
            met = "" if row["met"] else "missed"
            print(f"| {row['work']} | {row['aim']} | {row['measured']} | {met} |")
    for run in runs:
        print("\n" + "; ".join(f"{key} {value}" for key, value in run["environment"].items()))
        for row in run["rows"]:
            print(f"\n**{row['work']}**\n")
            for what, samples in row["samples"].items():
                print(f"- {what}: {', '.join(map(_figure, samples))}")


def _figure(sample: Any) -> str:
    return f"{sample:,.0f}" if sample >= 1000 else f"{sample:.3g}"


if __name__ == "__main__":
    main()
