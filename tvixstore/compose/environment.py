"""`${NAME}` in a string is the environment's, `$$` a dollar."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tvixstore.compose.values import Interpolated

_DOLLAR = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<wrong>))")

# Where a string stands in its table: keys, and positions in arrays.
Place = tuple[str | int, ...]


def interpolate(
    value: object, environ: Mapping[str, str], wrong: list[tuple[Place, str]], place: Place = ()
) -> object:
    """`value` with the environment's values in every string of it, tables and arrays included.

    What cannot be filled in is appended to `wrong`, with its place, and stays as it is.
    """
    if isinstance(value, str):
        if "$" not in value:
            return value
        problems = list(_problems(value, environ))
        wrong.extend((place, problem) for problem in problems)
        return value if problems else Interpolated(_fill(value, environ), value)
    if isinstance(value, list):
        return [
            interpolate(item, environ, wrong, (*place, index)) for index, item in enumerate(value)
        ]
    if isinstance(value, dict):
        return {
            key: interpolate(item, environ, wrong, (*place, key)) for key, item in value.items()
        }
    return value


def _problems(text: str, environ: Mapping[str, str]) -> Iterator[str]:
    for match in _DOLLAR.finditer(text):
        if match["name"] is not None and match["name"] not in environ:
            yield f"the environment variable {match['name']} is not set"
        elif match["wrong"] is not None:
            yield 'a lone "$": write "${NAME}" for an environment variable, "$$" for a dollar'


def _fill(text: str, environ: Mapping[str, str]) -> str:
    return _DOLLAR.sub(lambda match: environ[match["name"]] if match["name"] else "$", text)
