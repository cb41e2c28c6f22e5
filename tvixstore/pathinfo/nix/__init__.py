"""The substituter: a Nix binary cache as a path-info service, read through and verified."""

from tvixstore.pathinfo.nix.fill import Admission, Fills
from tvixstore.pathinfo.nix.settings import UpstreamSettings
from tvixstore.pathinfo.nix.substituter import NixPathInfoService
from tvixstore.pathinfo.nix.transports import open_upstream
from tvixstore.pathinfo.nix.upstream import Upstream

__all__ = [
    "Admission",
    "Fills",
    "NixPathInfoService",
    "Upstream",
    "UpstreamSettings",
    "open_upstream",
]
