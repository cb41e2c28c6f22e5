"""netrc, as curl and therefore Nix read it.

The standard library's reader stumbles over comments behind empty lines, and quotes what it does not
understand, which may be a password; this one says the line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# A word, or anything between double quotes, where a backslash takes the next character as it is.
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"(?!\S)|(\S+)')
_ESCAPED = re.compile(r"\\(.)")
_WITH_VALUE = frozenset({"machine", "login", "account", "password", "macdef"})


@dataclass(slots=True)
class Entry:
    login: str = ""
    account: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True)
class Netrc:
    """Who to be on each machine (names in lower case), and on those that are not listed."""

    machines: dict[str, Entry]
    default: Entry | None


def parse_netrc(text: str) -> Netrc:
    """Raises `ValueError` naming the line, and nothing of what is in it."""
    machines: dict[str, Entry] = {}
    default = entry = None
    keyword: str | None = None
    in_macro = False
    for number, line in enumerate(text.splitlines(), 1):
        if in_macro:
            # A macro ends at an empty line.
            in_macro = bool(line.strip())
            continue
        for found in _WORD.finditer(line):
            word = _ESCAPED.sub(r"\1", found[1]) if found[2] is None else found[2]
            if keyword == "macdef":
                keyword, in_macro = None, True
                break
            if keyword == "machine":
                # The first entry of a machine counts.
                entry = Entry()
                machines.setdefault(word.lower(), entry)
                keyword = None
            elif keyword is not None:
                if entry is None:
                    raise ValueError(f"line {number} is of no machine")
                setattr(entry, keyword, word)
                keyword = None
            elif word == "default":
                entry = Entry()
                default = default or entry
            elif word in _WITH_VALUE:
                keyword = word
            elif word.startswith("#"):
                break
            else:
                raise ValueError(f"line {number} is not netrc")
    if keyword is not None:
        raise ValueError("it ends in the middle of an entry")
    return Netrc(machines, default)
