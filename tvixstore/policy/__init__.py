"""Mechanisms that know nothing of stores: racing, retrying, breaking, following a spool."""
