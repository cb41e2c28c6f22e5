"""What a binary cache holds beside paths: realisations, build traces, logs, debug information."""

from tvixstore.extras.cached import CachedExtras
from tvixstore.extras.documents import MAX_DOCUMENT_BYTES, Conflict, check_document
from tvixstore.extras.local import LocalExtras
from tvixstore.extras.names import ExtraName, Kind
from tvixstore.extras.service import ExtrasService, Found
from tvixstore.extras.source import ExtrasSource
from tvixstore.extras.substituted import SubstitutedExtras
from tvixstore.extras.texts import MAX_LOG_BYTES, plain_text

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "MAX_LOG_BYTES",
    "CachedExtras",
    "Conflict",
    "ExtraName",
    "ExtrasService",
    "ExtrasSource",
    "Found",
    "Kind",
    "LocalExtras",
    "SubstitutedExtras",
    "check_document",
    "plain_text",
]
