"""Why an answer was what it was: the last request for each path, and dry runs, as documents."""

from tvixstore.explain.explanations import Explanations, found, path_hash_of
from tvixstore.explain.requests import Request, RequestKind

__all__ = ["Explanations", "Request", "RequestKind", "found", "path_hash_of"]
