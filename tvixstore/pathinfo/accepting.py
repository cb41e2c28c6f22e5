"""Whether a narinfo that somebody uploads is to be taken, and the path info that it becomes.

It may say nothing that is not known to be so: its NAR has to be here, ingested from its file, and
hash and size are those that were found then. References may be absent: they come first from Nix,
but later ones of other clients are not ours to forbid.
"""

from __future__ import annotations

from tvixstore.errors import InvalidData
from tvixstore.nix import NarInfo, NixHash, nixbase32
from tvixstore.pathinfo.info import PathInfo
from tvixstore.pathinfo.nix.substituter import describe
from tvixstore.pathinfo.nix.trust import check_content_address
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.upload_rows import NarFile
from tvixstore.pathinfo.uploads import Uploads
from tvixstore.tree import Content

_FOLDER = "nar/"
# Characters of an URL that are quoted.
_QUOTED = 200


def read_narinfo(path_hash: bytes, text: str) -> NarInfo:
    """The narinfo in `text`, put for the path with that hash; raises `InvalidData`."""
    narinfo = NarInfo.parse(text)
    if narinfo.store_path.hash != path_hash:
        raise InvalidData(
            f"this is the narinfo of {narinfo.store_path}, not of {nixbase32.encode(path_hash)}"
        )
    # Clients skip those that they cannot read; whoever puts one meant something by it.
    if len(narinfo.signatures) != text.count("\nSig: "):
        raise InvalidData("one of its Sig lines is not `name:base64` of an Ed25519 signature")
    if narinfo.ca is not None:
        check_content_address(narinfo, narinfo.ca)
    return narinfo


async def accept(
    narinfo: NarInfo, path_infos: PathInfoService, uploads: Uploads, content: Content
) -> tuple[PathInfo, NarFile | None]:
    """The path info of an uploaded `narinfo`, and the file that its URL names, if that is known.

    What it refers to stays for as long as the caller's session of `content`. Raises `InvalidData`,
    with the reason, where it does not fit what is here.
    """
    info, file = await _find(narinfo, path_infos, uploads)
    while True:
        await content.take(info.node)
        # Only what is found now stays: the upload may have expired before, or the path been
        # evicted that was to share its content.
        held = info.node
        info, file = await _find(narinfo, path_infos, uploads)
        if info.node == held:
            return info, file


async def _find(
    narinfo: NarInfo, path_infos: PathInfoService, uploads: Uploads
) -> tuple[PathInfo, NarFile | None]:
    name = narinfo.url.removeprefix(_FOLDER) if narinfo.url.startswith(_FOLDER) else ""
    description = describe(narinfo)
    if (upload := await uploads.find(name)) is not None:
        _check(narinfo, upload)
        return PathInfo.of(description, upload.node), upload
    if (known := await uploads.known(name)) is not None:
        _check(narinfo, known)
        if (source := await _stored(path_infos, known.path_hash, narinfo)) is not None:
            return PathInfo.of(description, source.node), known
    # A narinfo of ours comes back, with more signatures.
    if (source := await _stored(path_infos, narinfo.store_path.hash, narinfo)) is not None:
        return PathInfo.of(description, source.node), None
    raise InvalidData(
        f"its NAR, {narinfo.url[:_QUOTED]}, is not here: upload that first; it is kept for a day"
    )


async def _stored(
    path_infos: PathInfoService, path_hash: bytes, narinfo: NarInfo
) -> PathInfo | None:
    """What is known of that path with its content, if it has the NAR of `narinfo`."""
    described = await path_infos.describe(path_hash, narinfo.nar_sha256)
    if described is None or described.nar_sha256 != narinfo.nar_sha256:
        return None
    if described.nar_size != narinfo.nar_size:
        raise _differs("NarSize", narinfo.nar_size, described.nar_size)
    info = described if isinstance(described, PathInfo) else await path_infos.get(path_hash)
    return info if info is not None and info.nar_sha256 == narinfo.nar_sha256 else None


def _check(narinfo: NarInfo, file: NarFile) -> None:
    """Raises `InvalidData` unless all that `narinfo` says of its NAR is as it was found to be."""
    if narinfo.nar_sha256 != file.nar_sha256:
        raise _differs("NarHash", _sha256(narinfo.nar_sha256), _sha256(file.nar_sha256))
    if narinfo.nar_size != file.nar_size:
        raise _differs("NarSize", narinfo.nar_size, file.nar_size)
    if narinfo.compression != file.compression:
        raise _differs("Compression", narinfo.compression, file.compression)
    file_hash = _sha256(file.file_sha256)
    if narinfo.file_hash is not None and narinfo.file_hash != file_hash:
        raise _differs("FileHash", narinfo.file_hash, file_hash)
    if narinfo.file_size is not None and narinfo.file_size != file.file_size:
        raise _differs("FileSize", narinfo.file_size, file.file_size)


def _differs(key: str, said: object, found: object) -> InvalidData:
    return InvalidData(f"its {key} is {said}, and what was uploaded has {found}")


def _sha256(digest: bytes) -> NixHash:
    return NixHash("sha256", digest)
