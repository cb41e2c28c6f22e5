"""How chunks are kept: many at once as each by itself, and back."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tvixstore.blob.chunk_codec import (
    SAMPLE_ABOVE,
    Record,
    StoredForm,
    decode_chunk,
    encode_chunk,
    encode_chunks,
)
from tvixstore.castore import Digest

_SIZES = st.integers(0, 2000) | st.sampled_from([SAMPLE_ABOVE, SAMPLE_ABOVE + 1, 200_000])


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """That compress well, a little, or not at all."""
    size, noise = draw(_SIZES), draw(st.integers(0, 100))
    random_part = size * noise // 100
    return random.Random(size).randbytes(random_part) + bytes(size - random_part)


def _read(form: StoredForm) -> bytes:
    row = form.inline_row()
    assert (row.digest, row.stored, row.in_file) == (form.digest, form.stored, False)
    record = Record.decode(row.digest, row.row)
    assert record.payload is not None
    in_file = Record.decode(row.digest, form.file_row().row)
    assert (in_file.size, in_file.stored, in_file.payload) == (form.size, form.stored, None)
    assert in_file.compressed == record.compressed
    return decode_chunk(row.digest, record, record.payload)


@given(st.lists(chunks(), max_size=12), st.booleans())
def test_many_chunks_are_kept_as_each_by_itself(datas: list[bytes], compress: bool) -> None:
    forms = encode_chunks(datas, compress=compress)
    assert [_read(form) for form in forms] == datas
    assert [form.digest for form in forms] == [Digest.of(data).raw for data in datas]
    alone = [encode_chunk(data, compress=compress) for data in datas]
    assert [(form.compressed, form.stored) for form in forms] == [
        (form.compressed, form.stored) for form in alone
    ]


def test_what_compresses_is_compressed_wherever_it_stands_among_the_others() -> None:
    noise = random.Random(0).randbytes(5000)
    forms = encode_chunks([noise, bytes(5000), b"", bytes(100_000), noise], compress=True)
    assert [form.compressed for form in forms] == [False, True, False, True, False]
    assert not any(form.compressed for form in encode_chunks([bytes(5000)], compress=False))
