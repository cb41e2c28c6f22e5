"""What is wrong with a compose file: where, what, and what would be right, a line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvixstore.compose.key_types import LATER
from tvixstore.compose.model import Section
from tvixstore.compose.values import quote
from tvixstore.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    Explanation = Callable[[ErrorDetails, type[Section]], str]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to put right; `section` and `key` are empty where they don't apply."""

    section: str
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.section, self.key, self.text) if part)


def config_error(name: str, mistakes: Iterable[Mistake]) -> ConfigError:
    """All `mistakes` of the file `name` as one error."""
    return ConfigError("\n".join(f"{name}: {mistake}" for mistake in mistakes))


# What other programs, and haste, call our keys.
_ALIASES = {
    "trusted_public_keys": "public_keys",
    "public_key": "public_keys",
    "key": "public_keys",
    "keys": "public_keys",
    "listen": "http",
    "path": "state",
    "base_url": "url",
    "url": "base_url",
}


def unknown_key(key: str, known: Sequence[str]) -> str:
    """What to say of a key that nobody knows, with the one that was meant if it can be told."""
    from difflib import get_close_matches

    plain = key.lower().replace("-", "_")
    meant = plain if plain in known else _ALIASES.get(plain)
    if meant not in known:
        meant = next(iter(get_close_matches(plain, known, 1, 0.7)), None)
    if meant is not None:
        return f'unknown key; did you mean "{meant}"?'
    return f"unknown key; the keys here are {', '.join(known)}"


def unknown_choice(value: str, known: Sequence[str]) -> str:
    """What to say of a value that is none of the known ones."""
    from difflib import get_close_matches

    if (meant := next(iter(get_close_matches(value, known, 1, 0.6)), None)) is not None:
        return f'{quote(value)} is unknown; did you mean "{meant}"?'
    return f"{quote(value)} is unknown; write one of {', '.join(map(quote, known))}"


def explain(error: ErrorDetails, model: type[Section]) -> Mistake:
    """What pydantic found, in our words; `section` is for the caller to fill in."""
    key = str(error["loc"][0]) if error["loc"] else ""
    text = _TEXTS.get(error["type"], _other)(error, model)
    return Mistake("", key, _position(error) + text)


def _position(error: ErrorDetails) -> str:
    if len(error["loc"]) < 2 or not isinstance(error["loc"][1], int):
        return ""
    return f"#{error['loc'][1] + 1}: "


def _extra(error: ErrorDetails, model: type[Section]) -> str:
    key = str(error["loc"][0])
    return LATER if key in model.later else unknown_key(key, list(model.model_fields))


def _own(error: ErrorDetails, model: type[Section]) -> str:
    return str(error["ctx"]["error"])


def _choice(error: ErrorDetails, model: type[Section]) -> str:
    expected = error["ctx"]["expected"].replace("'", '"')
    return f"{quote(error['input'])} is none of the choices: write {expected}"


def _at_least(error: ErrorDetails, model: type[Section]) -> str:
    return f"{quote(error['input'])} is too little: the least is {error['ctx']['ge']}"


def _at_most(error: ErrorDetails, model: type[Section]) -> str:
    return f"{quote(error['input'])} is too much: the most is {error['ctx']['le']}"


def _missing(error: ErrorDetails, model: type[Section]) -> str:
    return "is missing, and there is no default for it"


def _must_be(what: str) -> Explanation:
    return lambda error, model: f"{quote(error['input'])} is not {what}"


def _other(error: ErrorDetails, model: type[Section]) -> str:
    return f"{quote(error['input'])}: {error['msg']}"


# One row a type of error that our models can have.
_TEXTS: dict[str, Explanation] = {
    "extra_forbidden": _extra,
    "value_error": _own,
    "missing": _missing,
    "literal_error": _choice,
    "greater_than_equal": _at_least,
    "less_than_equal": _at_most,
    "int_type": _must_be("a whole number"),
    "bool_type": _must_be("true or false (without quotes)"),
    "string_type": _must_be("a string"),
    "tuple_type": _must_be('an array: write ["…", "…"]'),
    "too_short": lambda error, model: "is empty: write at least one",
    "dict_type": _must_be("a table: write {}"),
}
