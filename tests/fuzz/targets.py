"""All that is fuzzed, by name. A parser that is not here is not fuzzed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.fuzz.administration import ADMINISTRATION
from tests.fuzz.archives import ARCHIVES
from tests.fuzz.codings import CODINGS
from tests.fuzz.credentials import CREDENTIALS
from tests.fuzz.documents import DOCUMENTS
from tests.fuzz.files import FILES
from tests.fuzz.nix_formats import NIX_FORMATS
from tests.fuzz.requests import REQUESTS
from tests.fuzz.uploads import UPLOADS
from tests.fuzz.wire import WIRE

if TYPE_CHECKING:
    from tests.fuzz.target import Target

TARGETS: dict[str, Target[Any]] = {
    **NIX_FORMATS,
    **ARCHIVES,
    **WIRE,
    **REQUESTS,
    **FILES,
    **CREDENTIALS,
    **UPLOADS,
    **CODINGS,
    **DOCUMENTS,
    **ADMINISTRATION,
}
