"""Compose files that are legal, and probably not what was meant: one rule each."""

from tvixstore.compose.lint.rules import RULES, Finding, lint

__all__ = ["RULES", "Finding", "lint"]
