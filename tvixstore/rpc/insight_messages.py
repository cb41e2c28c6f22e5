"""The messages of `tvixstore.v1.Insight`, read as strictly as all others."""

from __future__ import annotations

from dataclasses import dataclass

from tvixstore.castore.message import Message, bytes_field, number_field, text_field
from tvixstore.rpc.messages import PATH_HASH_BYTES, Form


@dataclass(frozen=True, slots=True)
class Explain:
    """Why the answers about that path were what they were; `dry_run` asks anew as well."""

    path_hash: bytes
    dry_run: bool = False


def _encode_explain(request: Explain) -> bytes:
    return bytes_field(1, request.path_hash) + number_field(2, request.dry_run)


def _decode_explain(data: bytes) -> Explain:
    message = Message(data, "ExplainRequest")
    path_hash = message.exactly(1, "path_hash", PATH_HASH_BYTES)
    return Explain(path_hash, message.number(2, "dry_run") != 0)


def _decode_explanation(data: bytes) -> str:
    return Message(data, "Explanation").text(1, "document")


EXPLAIN = Form("ExplainRequest", _encode_explain, _decode_explain)
# A document in JSON.
EXPLANATION: Form[str] = Form("Explanation", lambda text: text_field(1, text), _decode_explanation)
