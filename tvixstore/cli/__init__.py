"""The command line: `tvix-store`."""

from tvixstore.cli.app import main

__all__ = ["main"]
