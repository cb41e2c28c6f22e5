"""Compositions: a TOML file, checked, lowered to a graph of nodes, built and run.

Only `tvixstore.compose.build` knows the concrete services, and `composition` runs them. Neither is
re-exported here, so that checking and showing a file stay quick: they import no HTTP, no engine.
"""

from tvixstore.compose.config import Config
from tvixstore.compose.graph import Graph
from tvixstore.compose.key_files import load_key_file, parse_secret_key
from tvixstore.compose.lint import lint
from tvixstore.compose.load import load_document, load_file, load_text
from tvixstore.compose.lower import lower
from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.model import Daemon
from tvixstore.compose.nodes import Kind, Node
from tvixstore.compose.plugin import NodeType
from tvixstore.compose.show import show

__all__ = [
    "Config",
    "Daemon",
    "Graph",
    "Kind",
    "Mistake",
    "Node",
    "NodeType",
    "lint",
    "load_document",
    "load_file",
    "load_key_file",
    "load_text",
    "lower",
    "parse_secret_key",
    "show",
]
