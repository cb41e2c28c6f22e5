"""`/_tvix/explain/<hash>`: why the answers about a path were what they were."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from tvixstore.errors import InvalidData
from tvixstore.http.answers import Answer, absent
from tvixstore.http.urls import parse_path_hash
from tvixstore.nix import StorePath, nixbase32

if TYPE_CHECKING:
    from tvixstore.http.call import Call

_MAX_FIELDS = 16
_FLAGS = {"": False, "0": False, "1": True}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A path, by its hash alone; `dry_run` asks anew as well."""

    path_hash: bytes
    dry_run: bool = False


def parse_explain(text: str, query: str) -> Wanted:
    """From `<32 digits>`, or a whole base name, and `dry-run=1`; raises `InvalidData`."""
    path_hash = StorePath.from_base_name(text).hash if "-" in text else parse_path_hash(text)
    try:
        fields = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise InvalidData(f"the query has more than {_MAX_FIELDS} fields") from None
    flag = fields.get("dry-run", "")
    if flag not in _FLAGS:
        raise InvalidData(f"dry-run is {flag[:40]!r}, and not 0 or 1")
    return Wanted(path_hash, _FLAGS[flag])


async def explain(call: Call, wanted: Wanted) -> Answer:
    front = call.front
    text = await front.explanations.text(wanted.path_hash, front.path_infos, dry_run=wanted.dry_run)
    if text is None:
        digits = nixbase32.encode(wanted.path_hash)
        return absent(
            f"{digits} was not asked for lately, so there is nothing to explain: "
            "with ?dry-run=1 it is looked up now"
        )
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Answer(HTTPStatus.OK, "present", headers, text.encode() + b"\n")
