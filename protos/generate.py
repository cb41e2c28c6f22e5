"""Generates the Python code for the .proto files in this folder: `python generate.py FOLDER`.

Needs Google's compiler (grpcio-tools) and betterproto2's plugin, both of the extra `test`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).parent


def generate(folder: Path) -> None:
    """Replaces what is in `folder` by the generated package."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # The plugin, and the formatter that it calls, are beside this interpreter.
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    sources = sorted(path.relative_to(PROTOS) for path in PROTOS.rglob("*.proto"))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            f"--proto_path={PROTOS}",
            f"--python_betterproto2_out={folder}",
            "--python_betterproto2_opt=client_generation=async",
            "--python_betterproto2_opt=google_protobuf_descriptors",
            *map(str, sources),
        ],
        check=True,
        env=tools,
        capture_output=True,
    )
    (folder / "py.typed").unlink(missing_ok=True)
    # The plugin leaves out those without anything in them, where a package begins with its name.
    for child in folder.rglob("*"):
        if child.is_dir() and child.name != "__pycache__":
            (child / "__init__.py").touch()


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
