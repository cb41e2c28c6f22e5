"""What the rows of local stores name, for those who count it without knowing any format."""

from __future__ import annotations

from tvixstore.blob.chunk_codec import Record
from tvixstore.blob.chunk_list import decode_chunk_list
from tvixstore.castore import Digest, Node, decode_directory
from tvixstore.directory.local import keys_in
from tvixstore.errors import CorruptData
from tvixstore.kv import BLOB
from tvixstore.pathinfo.codec import decode_record


class StoredEdges:
    """`kv.references.Edges` of the formats that `blob`, `directory` and `pathinfo` write."""

    def of_directory(self, digest: bytes, row: bytes) -> list[bytes]:
        if Digest.of(row).raw != digest:
            raise CorruptData(f"Directory {digest.hex()} is damaged")
        return keys_in(decode_directory(row))

    def of_chunk_list(self, digest: bytes, row: bytes) -> list[bytes]:
        return list(dict.fromkeys(BLOB + chunk for chunk, _ in decode_chunk_list(digest, row)))

    def file_bytes(self, digest: bytes, row: bytes) -> int:
        record = Record.decode(digest, row)
        return record.stored if record.payload is None else 0

    def root_of(self, table: str, key: bytes, row: bytes) -> Node | None:
        return decode_record(row).node if table == "pathinfos" else None
