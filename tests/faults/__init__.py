"""The fault matrix: every way in which an upstream fails, where it may, beside whom."""
