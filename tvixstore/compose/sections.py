"""Tables of one compose file as models, with the mistakes that were found in them so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tvixstore.compose.environment import Place, interpolate
from tvixstore.compose.mistakes import Mistake, explain
from tvixstore.compose.model import Section

Model = TypeVar("Model", bound=Section)


@dataclass(eq=False)
class Sections:
    """One load; `folder` is what paths are relative to."""

    folder: Path
    environ: Mapping[str, str]
    mistakes: list[Mistake] = field(default_factory=list)

    def mistake(self, section: str, key: str, text: str) -> None:
        self.mistakes.append(Mistake(section, key, text))

    def table(self, document: Mapping[str, object], key: str) -> dict[str, object]:
        """`[key]`, empty if there is none, or after it was noted that it is no table."""
        table = document.get(key, {})
        if isinstance(table, dict):
            return table
        self.mistake(f"[{key}]", "", f'must be a table: write "[{key}]" on a line of its own')
        return {}

    def section(self, model: type[Model], label: str, table: Mapping[str, object]) -> Model | None:
        """`table` as a `model`, or `None` after what is wrong with it was noted."""
        wrong: list[tuple[Place, str]] = []
        filled = interpolate(dict(table), self.environ, wrong)
        found = [Mistake(label, str(place[0]), text) for place, text in wrong]
        unset = {mistake.key for mistake in found}
        made = None
        try:
            made = model.model_validate(filled, context={"folder": self.folder})
        except ValidationError as error:
            found += [
                replace(mistake, section=label)
                for mistake in explained(error, model)
                if mistake.key not in unset
            ]
        self.mistakes += in_order_of(table, found)
        return None if found else made


def explained(error: ValidationError, model: type[Section]) -> list[Mistake]:
    """What pydantic found, in our words; `section` is for the caller to fill in."""
    return [
        explain(detail, model)
        for detail in error.errors(include_url=False)
        # Of an array whose items are all wrong, each was told of.
        if not (detail["type"] == "too_short" and detail["input"])
    ]


def in_order_of(table: Mapping[str, object], mistakes: Sequence[Mistake]) -> list[Mistake]:
    """`mistakes` in the order in which the file has their keys, missing ones last."""
    order = {key: position for position, key in enumerate(table)}
    return sorted(mistakes, key=lambda mistake: order.get(mistake.key, len(order)))
