"""Who gets in, and what he may do: rights, tokens, certificates, and files that change."""

from tvixstore.access.access import Access
from tvixstore.access.reload import Reloaded, Watch, version_of
from tvixstore.access.rights import ALL, NONE, Denied, Right, Rights
from tvixstore.access.tls import Certificate, read_certificate
from tvixstore.access.tokens import Grant, Tokens, parse_tokens

__all__ = [
    "ALL",
    "NONE",
    "Access",
    "Certificate",
    "Denied",
    "Grant",
    "Reloaded",
    "Right",
    "Rights",
    "Tokens",
    "Watch",
    "parse_tokens",
    "read_certificate",
    "version_of",
]
