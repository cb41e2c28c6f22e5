"""Signing: on put, on the way out, and only what was signed before."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from tests.pathinfo.samples import (
    KEYS,
    STRANGER,
    TRUSTED,
    add,
    memory_content,
    secret_key,
    signature,
    signed,
    store_path,
)
from tests.pathinfo.scripted import KEY, Scripted, info_of
from tvixstore.errors import Untrusted
from tvixstore.nix import ContentAddress, KeyRing, NixHash, Signature
from tvixstore.pathinfo import (
    CachedPathInfoService,
    CountersigningPathInfoService,
    Description,
    MemoryPathInfoService,
    PathInfo,
    PathInfoService,
    SignatureRequiredPathInfoService,
    Signer,
    SigningPathInfoService,
)
from tvixstore.streams import ByteStream

OURS = secret_key("ours-1")
RING = KeyRing([OURS.public_key])
# As listed, which is not as Nix sorts them.
REFERENCES = (store_path("zlib-1.3"), store_path("glibc-2.40"), store_path("zlib-1.3"))


def ours(info: Description) -> Signature:
    return signature(replace(info, references=tuple(set(info.references))), OURS)


def signer_of(info: Description) -> str | None:
    return RING.signer(
        info.store_path, info.nar_sha256, info.nar_size, info.references, info.signatures
    )


def without_node(info: PathInfo) -> Description:
    return Description(
        store_path=info.store_path,
        nar_sha256=info.nar_sha256,
        nar_size=info.nar_size,
        references=info.references,
        signatures=info.signatures,
        ca=info.ca,
    )


def test_one_signature_over_the_sorted_references_is_added_behind_the_others() -> None:
    info = signed(replace(info_of(), references=REFERENCES), STRANGER)
    made = Signer(OURS).signed(info)
    assert made == replace(info, signatures=(*info.signatures, ours(info)))
    assert made.references == REFERENCES
    assert Signer(OURS).signed(made) is made


def test_what_somebody_else_calls_ours_is_not_taken_for_it() -> None:
    forged = Signature(OURS.name, bytes(64))
    info = replace(info_of(), signatures=(forged,))
    assert Signer(OURS).signed(info).signatures == (forged, ours(info))


async def test_a_path_that_is_put_again_is_not_signed_again() -> None:
    store = MemoryPathInfoService(memory_content())
    signing = SigningPathInfoService(store, Signer(OURS))
    info = signed(info_of(), STRANGER)
    first = await signing.put(info)
    assert first.signatures == (*info.signatures, ours(info))
    assert await signing.put(info) == await signing.put(first) == first
    assert await store.get(KEY) == first
    # It signs what is put, and nothing else.
    store.infos[KEY] = info
    assert await signing.get(KEY) == await signing.describe(KEY) == info


async def test_what_a_cache_keeps_is_signed_by_a_near_that_signs() -> None:
    content = memory_content()
    sample = await add(content, "hello", b"content", signers=[TRUSTED])
    far, near = MemoryPathInfoService(content), MemoryPathInfoService(content)
    await far.put(sample.info)
    cache = CachedPathInfoService(SigningPathInfoService(near, Signer(OURS)), far)
    expected = replace(sample.info, signatures=(*sample.info.signatures, ours(sample.info)))
    assert await cache.get(sample.key) == expected
    assert await near.get(sample.key) == expected


async def test_a_fill_is_put_into_the_near_that_signs() -> None:
    far = Scripted()
    near = SigningPathInfoService(MemoryPathInfoService(memory_content()), Signer(OURS))
    stream = await CachedPathInfoService(near, far).open_nar(info_of())
    assert stream is not None
    await stream.aclose()
    assert far.into is near


async def test_everything_that_goes_out_is_signed_and_nothing_needs_to_be_stored_for_it() -> None:
    store = MemoryPathInfoService(memory_content())
    info = signed(info_of(), TRUSTED)
    await store.put(info)
    out = CountersigningPathInfoService(store, Signer(OURS), KEYS)
    expected = replace(info, signatures=(*info.signatures, ours(info)))
    assert await out.describe(KEY) == await out.get(KEY) == expected
    assert [info async for info in out.list()] == [expected]
    assert await store.get(KEY) == info


async def test_what_is_put_is_stored_with_our_signature() -> None:
    store = MemoryPathInfoService(memory_content())
    out = CountersigningPathInfoService(store, Signer(OURS), KEYS)
    expected = replace(info_of(), signatures=(ours(info_of()),))
    assert await out.put(info_of()) == expected
    assert await store.get(KEY) == expected


async def test_absence_and_failures_pass() -> None:
    out = CountersigningPathInfoService(Scripted(None), Signer(OURS), KEYS)
    assert await out.describe(KEY) is None
    assert await out.get(KEY) is None
    out = CountersigningPathInfoService(Scripted(Untrusted("no")), Signer(OURS), KEYS)
    with pytest.raises(Untrusted):
        await out.describe(KEY)


async def test_the_same_object_goes_out_for_as_long_as_the_same_comes_in() -> None:
    far = Scripted(signed(info_of(), TRUSTED))
    out = CountersigningPathInfoService(far, Signer(OURS), KEYS)
    first = await out.describe(KEY)
    assert await out.describe(KEY) is first
    # An equal one, as a store decodes it anew.
    far.says = replace(info_of(), signatures=(signature(info_of(), TRUSTED),))
    assert await out.get(KEY) is first
    far.says = replace(far.says, signatures=())
    changed = await out.get(KEY)
    assert changed is not None and changed.signatures == (ours(info_of()),)


async def test_a_description_and_the_path_info_it_becomes_have_the_same_signatures() -> None:
    store = MemoryPathInfoService(memory_content())
    out = CountersigningPathInfoService(store, Signer(OURS), KEYS)
    info = signed(info_of(), TRUSTED)
    cold = CountersigningPathInfoService(_Describing(without_node(info)), Signer(OURS), KEYS)
    before = await cold.describe(KEY)
    await store.put(info)
    after = await out.describe(KEY)
    assert before is not None and after is not None
    assert before.signatures == after.signatures == (*info.signatures, ours(info))
    assert signer_of(before) == OURS.name


class _Describing(Scripted):
    """A substituter that was asked for a narinfo and for nothing else."""

    def __init__(self, description: Description) -> None:
        super().__init__()
        self.description = description

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        return self.description


class _Opening(_Describing):
    """Remembers what it was asked the NAR of."""

    opened: Description | None = None

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        self.opened = description
        return None


async def test_our_signature_is_not_handed_back_to_who_may_keep_it() -> None:
    description = without_node(signed(info_of(), TRUSTED))
    inner = _Opening(description)
    out = CountersigningPathInfoService(inner, Signer(OURS), KEYS)
    said = await out.describe(KEY)
    assert said is not None
    await out.open_nar(said)
    assert inner.opened is description
    other = replace(description, nar_size=7)
    await out.open_nar(other)
    assert inner.opened is other


def addressed(address: ContentAddress, nar_sha256: bytes) -> Description:
    return Description(
        store_path=address.store_path("hello", []),
        nar_sha256=nar_sha256,
        nar_size=100,
        ca=address,
    )


RECURSIVE = ContentAddress("recursive", NixHash("sha256", b"\1" * 32))
FLAT = ContentAddress("flat", NixHash("sha256", b"\1" * 32))


async def test_a_nar_hash_that_only_the_content_will_prove_is_not_signed_before() -> None:
    proven = addressed(RECURSIVE, b"\1" * 32)
    unproven = addressed(FLAT, b"\2" * 32)
    for description, names in ((proven, [OURS.name]), (unproven, [])):
        out = CountersigningPathInfoService(_Describing(description), Signer(OURS), KEYS)
        said = await out.describe(KEY)
        assert said is not None
        assert [each.name for each in said.signatures] == names
    # The content was looked at by whoever stored it.
    node = info_of().node
    out = CountersigningPathInfoService(Scripted(PathInfo.of(unproven, node)), Signer(OURS), KEYS)
    stored = await out.describe(KEY)
    assert stored is not None and signer_of(stored) == OURS.name
    # And a trusted signature says that somebody else did.
    vouched = replace(unproven, signatures=(signature(unproven, TRUSTED),))
    out = CountersigningPathInfoService(_Describing(vouched), Signer(OURS), KEYS)
    said = await out.describe(KEY)
    assert said is not None and signer_of(said) == OURS.name


async def test_what_is_believed_without_any_signature_is_signed_as_its_owner_wants_it() -> None:
    # Of unsigned substituters: lint warns of them.
    description = without_node(info_of())
    out = CountersigningPathInfoService(_Describing(description), Signer(OURS), KEYS)
    said = await out.describe(KEY)
    assert said is not None and signer_of(said) == OURS.name


async def test_a_put_needs_a_signature_that_holds_by_a_key_that_is_required() -> None:
    store = MemoryPathInfoService(memory_content())
    required = SignatureRequiredPathInfoService(store, KeyRing([TRUSTED.public_key]))
    forged = Signature(TRUSTED.name, bytes(64))
    for refused, told in (
        (info_of(), "signed by nobody"),
        (signed(info_of(), STRANGER), "signed by stranger-1"),
        (replace(info_of(), signatures=(forged,)), "signed by trusted-1"),
        (replace(signed(info_of(), TRUSTED), nar_size=101), "signed by trusted-1"),
    ):
        with pytest.raises(Untrusted, match=rf"by one of trusted-1 .* is {told}"):
            await required.put(refused)
    assert store.infos == {}
    await required.put(signed(info_of(), STRANGER, TRUSTED))
    assert KEY in store.infos


async def test_a_content_address_does_not_stand_for_a_required_signature() -> None:
    nar_sha256 = hashlib.sha256(b"nar").digest()
    address = ContentAddress("recursive", NixHash("sha256", nar_sha256))
    info = PathInfo.of(addressed(address, nar_sha256), info_of().node)
    required = SignatureRequiredPathInfoService(
        MemoryPathInfoService(memory_content()), KeyRing([TRUSTED.public_key])
    )
    with pytest.raises(Untrusted):
        await required.put(info)


async def test_our_own_signature_is_none_that_is_required() -> None:
    store = MemoryPathInfoService(memory_content())
    signing = CountersigningPathInfoService(store, Signer(OURS), KEYS)
    required = SignatureRequiredPathInfoService(signing, KeyRing([TRUSTED.public_key]))
    with pytest.raises(Untrusted):
        await required.put(info_of())
    listed = SignatureRequiredPathInfoService(signing, RING)
    with pytest.raises(Untrusted):
        await listed.put(info_of())
    await listed.put(Signer(OURS).signed(info_of()))
