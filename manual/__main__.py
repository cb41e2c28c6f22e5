"""`python -m manual FOLDER`: writes what goes into `share/`, in place of what is in FOLDER."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from manual import bash, compose_page, fish, man, zsh
from manual.commands import read_commands


def render() -> dict[str, str]:
    """Each file by its path in `share/`."""
    root = read_commands()
    return {
        "bash-completion/completions/tvix-store": bash.render(root),
        "fish/vendor_completions.d/tvix-store.fish": fish.render(root),
        "zsh/site-functions/_tvix-store": zsh.render(root),
        **{f"man/man1/{'-'.join(each.words)}.1": man.render(each, root) for each in root.all()},
        f"man/man5/{compose_page.NAME}.5": compose_page.render(),
    }


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in render().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
