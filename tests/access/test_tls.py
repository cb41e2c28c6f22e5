"""Certificates that can be used, and what is said of those that cannot."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.certificates import Authority, make_authority
from tvixstore.access import read_certificate
from tvixstore.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), "localhost")


def test_one_file_may_have_both(authority: Authority) -> None:
    certificate = read_certificate(authority.chain, authority.chain, authority.ca_file)
    assert certificate.grpc.verify_mode.name == "CERT_REQUIRED"
    assert certificate.http.verify_mode.name == "CERT_NONE"


def mistake(cert: Path, key: Path, client_ca: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read_certificate(cert, key, client_ca)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_not_there_is_named(authority: Authority, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for key, message in (
        ("tls_cert", mistake(absent, authority.chain)),
        ("tls_key", mistake(authority.chain, absent)),
        ("client_ca", mistake(authority.chain, authority.chain, absent)),
    ):
        assert message.startswith(f"{key}: {absent} cannot be read: No such file"), message


def test_a_file_of_another_kind_is_named(authority: Authority, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"\x30\x82 DER or so")
    assert mistake(other, authority.chain).startswith(f"tls_cert: {other} has no certificate")
    key = mistake(authority.chain, other)
    assert key.startswith(f"tls_key: {other} cannot be used")
    assert "PEM" in key
    client_ca = mistake(authority.chain, authority.chain, other)
    assert client_ca.startswith(f"client_ca: {other} has no certificate in it")


def test_a_key_of_another_certificate_is_told(authority: Authority, tmp_path: Path) -> None:
    other = authority.issue(tmp_path / "other.pem")
    assert "is not the key of the first certificate in" in mistake(authority.chain, other)


def test_an_encrypted_key_asks_nobody_for_its_passphrase(
    authority: Authority, tmp_path: Path
) -> None:
    encrypted = tmp_path / "key.pem"
    encrypted.write_bytes(
        authority.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"s3cret"),
        )
    )
    assert "is encrypted" in mistake(authority.chain, encrypted)


@pytest.mark.parametrize(("door", "protocol"), [("http", "http/1.1"), ("grpc", "h2")])
def test_each_door_speaks_its_own_protocol(authority: Authority, door: str, protocol: str) -> None:
    context = getattr(read_certificate(authority.chain, authority.chain), door)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = ssl.create_default_context(cafile=authority.ca_file)
        client.maximum_version = version
        client.set_alpn_protocols(["http/1.0", "http/1.1", "h2"])
        agreed = handshake(client, context)
        assert agreed.selected_alpn_protocol() == protocol
        assert agreed.version() == version.name.replace("v1_", "v1.")


def test_older_versions_are_not_spoken(authority: Authority) -> None:
    certificate = read_certificate(authority.chain, authority.chain)
    assert certificate.http.minimum_version is certificate.grpc.minimum_version
    assert certificate.http.minimum_version is ssl.TLSVersion.TLSv1_2


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> ssl.SSLObject:
    """The client's end of a connection in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname="localhost")
    theirs = server.wrap_bio(up, down, server_side=True)
    for _ in range(5):
        for end in (ours, theirs):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ours
