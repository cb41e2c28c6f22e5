"""The substituter: a Nix binary cache as a path-info service, read through and verified."""

from tvixstore.pathinfo.nix.credentials import TokenFile
from tvixstore.pathinfo.nix.fills import Admission, Fills
from tvixstore.pathinfo.nix.settings import UpstreamSettings
from tvixstore.pathinfo.nix.substituter import NixPathInfoService
from tvixstore.pathinfo.nix.tls import client_context
from tvixstore.pathinfo.nix.transports import open_upstream
from tvixstore.pathinfo.nix.upstream import Upstream

__all__ = [
    "Admission",
    "Fills",
    "NixPathInfoService",
    "TokenFile",
    "Upstream",
    "UpstreamSettings",
    "client_context",
    "open_upstream",
]
