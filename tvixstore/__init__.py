"""A composable content-addressed store and caching proxy for Nix."""

__version__ = "0.1.0"
