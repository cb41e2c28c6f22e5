"""Compressions of NARs and of transfers: told apart, undone, and made again."""

from tvixstore.compression.compress import COMPRESSORS, Compressor
from tvixstore.compression.decompress import MAX_PIECE, Decoder, Stage, decoder
from tvixstore.compression.sniff import SNIFFED, sniff

__all__ = [
    "COMPRESSORS",
    "MAX_PIECE",
    "SNIFFED",
    "Compressor",
    "Decoder",
    "Stage",
    "decoder",
    "sniff",
]
