"""Path infos: what is known of store paths, and everywhere that it can be kept or asked for."""

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.local import LocalPathInfoService
from tvixstore.pathinfo.memory import MemoryPathInfoService
from tvixstore.pathinfo.remembered import ABSENT, Absent, RememberedAnswers
from tvixstore.pathinfo.service import PathInfoService

__all__ = [
    "ABSENT",
    "Absent",
    "Description",
    "LocalPathInfoService",
    "MemoryPathInfoService",
    "PathInfo",
    "PathInfoService",
    "RememberedAnswers",
]
