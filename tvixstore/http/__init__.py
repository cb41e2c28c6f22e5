"""The HTTP front door: a Nix binary cache, and what operators ask a daemon."""

from tvixstore.http.front import HttpFront, Inbox, UpstreamStatus
from tvixstore.http.limits import Limits
from tvixstore.http.server import HttpServer, serve
from tvixstore.listen import Address, parse_address

__all__ = [
    "Address",
    "HttpFront",
    "HttpServer",
    "Inbox",
    "Limits",
    "UpstreamStatus",
    "parse_address",
    "serve",
]
