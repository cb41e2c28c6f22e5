"""The generated code is what the .proto files give, and its messages are those that we read."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def generate(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "protos" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate(folder)


def modules(folder: Path) -> dict[str, str]:
    # As it means, not as it is laid out: that depends on the formatter's version.
    return {
        str(path.relative_to(folder)): ast.dump(ast.parse(path.read_text()))
        for path in folder.rglob("*.py")
    }


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    generate(tmp_path / "proto")
    generated, committed = modules(tmp_path / "proto"), modules(ROOT / "tvixstore" / "proto")
    stale = {name for name in generated | committed if generated.get(name) != committed.get(name)}
    assert not stale, "`make protos` was forgotten"
