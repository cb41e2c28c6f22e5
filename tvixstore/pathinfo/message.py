"""Kept for those who still look for it here."""

from tvixstore.castore.message import Message, bytes_field, number_field, text_field

__all__ = ["Message", "bytes_field", "number_field", "text_field"]
