"""Messages against two other writers and readers, and against what a lenient reader takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tvixstore.proto.snix.castore.v1 as snix_castore
import tvixstore.proto.tvix.castore.v1 as castore
import tvixstore.proto.tvix.store.v1 as store
import tvixstore.proto.tvixstore.v1 as ours
from tests.castore.samples import digests, directories, nodes
from tests.rpc.google import message
from tvixstore.blob import Chunk
from tvixstore.castore import Digest, FileNode, SymlinkNode, encode_node
from tvixstore.errors import InvalidData
from tvixstore.nar import NarIdentity
from tvixstore.nix import Signature, StorePath
from tvixstore.pathinfo import Description, PathInfo, Pin
from tvixstore.rpc import activity_messages, admin_messages, insight_messages, messages
from tvixstore.rpc.codec import WireCodec
from tvixstore.rpc.messages import Describe, Form, GetDirectory, OpenNar, StatBlob
from tvixstore.upkeep import (
    KINDS,
    OUTCOMES,
    Finding,
    Pinned,
    PinRequest,
    Progress,
    Summary,
    VerifyRequest,
)

if TYPE_CHECKING:
    import betterproto2

DIGEST = Digest.of(b"")
HASH = b"\1" * 20
SHA256 = b"\2" * 32

numbers = st.integers(0, 2**64 - 1)
hashes = st.binary(min_size=20, max_size=20)
sha256s = st.binary(min_size=32, max_size=32)
identities = st.builds(NarIdentity, numbers, sha256s)
words = st.text(st.characters(categories=["L", "N"]), max_size=20)
paths = st.builds(StorePath, hashes, st.just("name") | st.just("other.name-1"))
pins = st.builds(Pin, paths, numbers, words)
events = (
    st.builds(Progress, words, numbers, st.none() | numbers, numbers)
    | st.builds(Finding, st.sampled_from(KINDS), words, words, st.sampled_from(OUTCOMES))
    | st.builds(Summary, *[numbers] * 11)
)

# Each form with values of it, and the betterproto2 and Google messages that it is.
FORMS: dict[str, tuple[Form[Any], st.SearchStrategy[Any], type[betterproto2.Message], str]] = {
    form.name: (form, values, better, google)
    for form, values, better, google in (
        (
            messages.STAT_BLOB,
            st.builds(StatBlob, digests, st.booleans()),
            castore.StatBlobRequest,
            "tvix.castore.v1.StatBlobRequest",
        ),
        (
            messages.BLOB_CHUNKS,
            st.lists(st.builds(Chunk, digests, numbers), max_size=5),
            castore.StatBlobResponse,
            "snix.castore.v1.StatBlobResponse",
        ),
        (messages.READ_BLOB, digests, castore.ReadBlobRequest, "tvix.castore.v1.ReadBlobRequest"),
        (messages.BLOB_DATA, st.binary(), castore.BlobChunk, "tvix.castore.v1.BlobChunk"),
        (messages.BLOB_DIGEST, digests, castore.PutBlobResponse, "tvix.castore.v1.PutBlobResponse"),
        (
            messages.GET_DIRECTORY,
            st.builds(GetDirectory, digests, st.booleans()),
            castore.GetDirectoryRequest,
            "tvix.castore.v1.GetDirectoryRequest",
        ),
        (messages.DIRECTORY, directories, snix_castore.Directory, "snix.castore.v1.Directory"),
        (
            messages.ROOT_DIGEST,
            digests,
            castore.PutDirectoryResponse,
            "tvix.castore.v1.PutDirectoryResponse",
        ),
        (
            messages.PATH_HASH,
            hashes,
            store.GetPathInfoRequest,
            "tvix.store.v1.GetPathInfoRequest",
        ),
        (messages.ROOT, nodes, castore.Node, "tvix.castore.v1.Node"),
        (
            messages.NAR_IDENTITY,
            identities,
            store.CalculateNarResponse,
            "tvix.store.v1.CalculateNARResponse",
        ),
        (
            messages.NOTHING,
            st.none(),
            store.ListPathInfoRequest,
            "tvix.store.v1.ListPathInfoRequest",
        ),
        (
            messages.DESCRIBE,
            st.builds(Describe, hashes, st.none() | sha256s),
            ours.DescribeRequest,
            "tvixstore.v1.DescribeRequest",
        ),
        (
            messages.OPEN_NAR,
            st.builds(OpenNar, hashes, identities, numbers, st.none() | numbers),
            ours.OpenNarRequest,
            "tvixstore.v1.OpenNarRequest",
        ),
        (
            messages.BLOB_DIGESTS,
            st.lists(digests, max_size=5),
            ours.BlobDigests,
            "tvixstore.v1.BlobDigests",
        ),
        (
            messages.SMALL_BLOBS,
            st.lists(st.builds(FileNode, digests, numbers), max_size=5),
            ours.SmallBlobs,
            "tvixstore.v1.SmallBlobs",
        ),
        (
            messages.BLOB_BATCH,
            st.lists(st.binary(), max_size=5),
            ours.BlobBatch,
            "tvixstore.v1.BlobBatch",
        ),
        (messages.NAR_DATA, st.binary(), ours.NarChunk, "tvixstore.v1.NarChunk"),
        (
            admin_messages.PIN,
            st.builds(PinRequest, paths, st.none() | words, st.booleans()),
            ours.PinRequest,
            "tvixstore.v1.PinRequest",
        ),
        (
            admin_messages.PINNED,
            st.builds(Pinned, pins, numbers, numbers, st.lists(paths).map(tuple), numbers),
            ours.PinnedPath,
            "tvixstore.v1.PinnedPath",
        ),
        (admin_messages.UNPIN, paths, ours.UnpinRequest, "tvixstore.v1.UnpinRequest"),
        (admin_messages.UNPINNED, st.just(True), ours.UnpinResponse, "tvixstore.v1.UnpinResponse"),
        (admin_messages.LIST_PINS, st.none(), ours.ListPinsRequest, "tvixstore.v1.ListPinsRequest"),
        (
            admin_messages.FORGET,
            st.lists(hashes, max_size=3),
            ours.ForgetAbsencesRequest,
            "tvixstore.v1.ForgetAbsencesRequest",
        ),
        (
            admin_messages.FORGOTTEN,
            numbers,
            ours.ForgetAbsencesResponse,
            "tvixstore.v1.ForgetAbsencesResponse",
        ),
        (
            admin_messages.VERIFY,
            st.builds(VerifyRequest, st.booleans(), st.lists(paths).map(tuple)),
            ours.VerifyRequest,
            "tvixstore.v1.VerifyRequest",
        ),
        (admin_messages.EVENT, events, ours.VerifyEvent, "tvixstore.v1.VerifyEvent"),
        (
            activity_messages.WATCH,
            st.integers(200, 20_000).map(lambda milliseconds: milliseconds / 1000),
            ours.WatchRequest,
            "tvixstore.v1.WatchRequest",
        ),
        (
            activity_messages.SNAPSHOT,
            st.text(),
            ours.ActivitySnapshot,
            "tvixstore.v1.ActivitySnapshot",
        ),
        (
            insight_messages.EXPLAIN,
            st.builds(insight_messages.Explain, hashes, st.booleans()),
            ours.ExplainRequest,
            "tvixstore.v1.ExplainRequest",
        ),
        (insight_messages.EXPLANATION, words, ours.Explanation, "tvixstore.v1.Explanation"),
    )
}


@pytest.mark.parametrize("name", FORMS)
@given(data=st.data())
def test_three_readers_and_writers_agree(name: str, data: st.DataObject) -> None:
    form, values, better, google = FORMS[name]
    value = data.draw(values)
    wire = form.encode(value)
    assert form.decode(wire) == value
    codec = WireCodec()
    assert codec.decode(codec.encode(value, form), form) == value
    theirs = message(google)
    theirs.ParseFromString(wire)
    assert theirs.SerializeToString(deterministic=True) == wire
    assert bytes(better.parse(wire)) == wire


SIGNATURES = (Signature("key-1", b"\3" * 64),)
PATH = StorePath(HASH, "name")
DESCRIPTION = Description(
    store_path=PATH,
    nar_sha256=SHA256,
    nar_size=7,
    references=(PATH, StorePath(b"\4" * 20, "other")),
    signatures=SIGNATURES,
)


@pytest.mark.parametrize(
    "description",
    [
        DESCRIPTION,
        Description(
            store_path=PATH, nar_sha256=SHA256, nar_size=0, deriver=StorePath(HASH, "x.drv")
        ),
        Description(
            store_path=PATH, nar_sha256=SHA256, nar_size=0, deriver=StorePath(HASH, "no-drv")
        ),
        PathInfo.of(DESCRIPTION, SymlinkNode(b"target")),
    ],
    ids=["plain", "with a deriver", "with a deriver that is none", "with a node"],
)
def test_descriptions_travel_whole(description: Description) -> None:
    wire = messages.DESCRIPTION.encode(description)
    assert messages.DESCRIPTION.decode(wire) == description
    theirs = message("tvixstore.v1.Description")
    theirs.ParseFromString(wire)
    assert theirs.SerializeToString(deterministic=True) == wire


CUT = messages.STAT_BLOB.encode(StatBlob(DIGEST))
NARINFO = b"\x12\x20" + SHA256
WRONG: dict[str, tuple[Form[Any], bytes, str]] = {
    "nothing at all": (messages.STAT_BLOB, b"", "StatBlobRequest.digest is 0 bytes long"),
    "cut off": (messages.STAT_BLOB, CUT[:-1], "StatBlobRequest: ends within a field"),
    "cut off in a tag": (messages.READ_BLOB, CUT + b"\x80", "ReadBlobRequest: ends within"),
    "twice": (messages.READ_BLOB, CUT + CUT, "ReadBlobRequest.digest comes 2 times"),
    "a number for bytes": (messages.READ_BLOB, b"\x08\x01", "ReadBlobRequest.digest is a number"),
    "bytes for a number": (messages.STAT_BLOB, CUT + b"\x12\x00", "send_chunks is not a number"),
    "bytes for a flag without meaning": (
        messages.STAT_BLOB,
        CUT + b"\x1a\x00",
        "send_bao is not a number",
    ),
    "field 0": (messages.READ_BLOB, CUT + b"\x00\x01", "field number 0"),
    "a field above 2^29": (messages.READ_BLOB, CUT + b"\x80\x80\x80\x80\x10\x01", "field number"),
    "a group": (messages.READ_BLOB, CUT + b"\x13\x14", "wire type 3"),
    "a number above 64 bits": (
        messages.STAT_BLOB,
        CUT + b"\x10" + b"\xff" * 10 + b"\x01",
        "above 64 bits",
    ),
    "a chunk without a digest": (
        messages.BLOB_CHUNKS,
        b"\x12\x00",
        r"StatBlobResponse.chunks\[0\].digest is 0 bytes long",
    ),
    "the second chunk": (
        messages.BLOB_CHUNKS,
        b"\x12\x22" + CUT + b"\x12\x02\x0a\x00",
        r"chunks\[1\].digest",
    ),
    "a short path hash": (messages.PATH_HASH, b"\x0a\x01a", "by_output_hash is 1 bytes long"),
    "a NAR hash of 31 bytes": (
        messages.NAR_IDENTITY,
        b"\x12\x1f" + b"a" * 31,
        "CalculateNARResponse.nar_sha256 is 31 bytes long",
    ),
    "a short hash to describe": (
        messages.DESCRIBE,
        b"\x0a\x14" + HASH + b"\x12\x01a",
        "DescribeRequest.nar_sha256 is 1 bytes long",
    ),
    "a root with a name": (messages.ROOT, encode_node(SymlinkNode(b"t"), b"n"), "has no name"),
    "a description without a path": (
        messages.DESCRIPTION,
        b"\x12\x22" + NARINFO,
        "Description.store_path",
    ),
    "a description without a narinfo": (
        messages.DESCRIPTION,
        b"\x0a\x25" + PATH.base_name.encode(),
        "Description.narinfo is missing",
    ),
    "a path to be pinned that is none": (
        admin_messages.PIN,
        b"\x0a\x03abc",
        "PinRequest.store_path: 'abc' is not a store path",
    ),
    "a path to be forgotten that is no hash": (
        admin_messages.FORGET,
        b"\x0a\x01a",
        r"ForgetAbsencesRequest.path_hashes\[0\] is 1 bytes long",
    ),
    "an event of two kinds": (
        admin_messages.EVENT,
        b"\x0a\x00\x1a\x00",
        "VerifyEvent has 2 events in it",
    ),
    "no event": (admin_messages.EVENT, b"", "VerifyEvent has 0 events"),
    "a finding of a kind that is not known": (
        admin_messages.EVENT,
        b"\x12\x03\x0a\x01x",
        "VerifyFinding.kind: 'x' is not known",
    ),
    "a path to be explained that is no hash": (
        insight_messages.EXPLAIN,
        b"\x0a\x01a",
        "ExplainRequest.path_hash is 1 bytes long",
    ),
    "a NAR chunk that is cut off": (messages.NAR_DATA, b"\x0a\x05abc", "NarChunk: ends within"),
}


@pytest.mark.parametrize(("form", "wire", "says"), WRONG.values(), ids=WRONG)
def test_what_a_lenient_reader_takes_is_refused_with_its_field(
    form: Form[Any], wire: bytes, says: str
) -> None:
    with pytest.raises(InvalidData, match=says):
        form.decode(wire)


@pytest.mark.parametrize("name", FORMS)
@given(wire=st.binary(max_size=80))
def test_any_bytes_are_a_value_or_invalid(name: str, wire: bytes) -> None:
    form = FORMS[name][0]
    try:
        value = form.decode(wire)
    except InvalidData:
        return
    assert form.decode(form.encode(value)) == value


def test_unknown_fields_are_skipped() -> None:
    unknown = b"\x7a\x03abc" + b"\xf8\x01\x05" + b"\xb9\x01" + b"8bytes.." + b"\xb5\x014444"
    assert messages.READ_BLOB.decode(CUT + unknown) == DIGEST
