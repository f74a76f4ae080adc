"""Signatures are checked as OpenSSH would, and more strictly where OpenSSH is lenient."""
from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.product.signing import KINDS, Signer
from ussycode.tokens import sshsig

NAME = "v0@localhost"
TEXT = b'{"cmds":["ls"]}'


def text(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def mpint(number: int) -> bytes:
    return text(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def blob(key: bytes, signature: bytes, namespace: bytes = NAME.encode(), hash_name: bytes = b"sha512") -> bytes:
    parts = (key, namespace, b"", hash_name, signature)
    return b"SSHSIG" + (1).to_bytes(4, "big") + b"".join(map(text, parts))


def signed(message: bytes = TEXT, namespace: bytes = NAME.encode(), hash_name: str = "sha512") -> bytes:
    digest = hashlib.new(hash_name, message).digest()
    return b"SSHSIG" + b"".join(map(text, (namespace, b"", hash_name.encode(), digest)))


def refused(data: bytes, why: str, namespace: str = NAME, message: bytes = TEXT) -> None:
    with pytest.raises(ValueError) as error:
        sshsig.verify(sshsig.parse(data), namespace, message)
    assert str(error.value) == why


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Signer.make(tmp_path_factory.mktemp("keys")).signature(TEXT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
def test_signatures_of_ssh_keygen(tmp_path: Path, kind: str, hash_name: str) -> None:
    made = Signer.make(tmp_path, kind).signature(TEXT, NAME, hash_name)
    sshsig.verify(sshsig.parse(made), NAME, TEXT)
    refused(made, "it does not fit the text and the key", message=TEXT + b" ")


def test_another_namespace(good: bytes) -> None:
    refused(good, "it was made for another namespace than v0@other.host", "v0@other.host")


@pytest.mark.parametrize("kind", ["", "file", "v0@LOCALHOST", "v0@localhost "])
def test_namespaces_are_compared_to_the_letter(tmp_path: Path, kind: str) -> None:
    made = blob(b"k", b"s", kind.encode())
    refused(made, "it was made for another namespace than v0@localhost")


def test_bytes_after_the_end(good: bytes) -> None:
    refused(good + b"\0", "bytes follow after its end")


def test_every_cut(good: bytes) -> None:
    for length in range(len(good)):
        with pytest.raises(ValueError):
            sshsig.verify(sshsig.parse(good[:length]), NAME, TEXT)


def test_every_flipped_bit(good: bytes) -> None:
    for at in range(len(good)):
        changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        with pytest.raises(ValueError):
            sshsig.verify(sshsig.parse(changed), NAME, TEXT)


def test_another_version(good: bytes) -> None:
    refused(good[:6] + b"\0\0\0\2" + good[10:], "its version is unknown")


def test_an_unknown_hash() -> None:
    refused(blob(b"k", b"s", hash_name=b"md5"), "its hash is neither sha256 nor sha512")


def test_rsa_with_sha1() -> None:
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.public_key().public_numbers()
    key = text(b"ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)
    made = text(b"ssh-rsa") + text(private.sign(signed(), padding.PKCS1v15(), hashes.SHA1()))
    refused(blob(key, made), "its algorithm is not accepted")
    better = text(b"rsa-sha2-256") + text(private.sign(signed(), padding.PKCS1v15(), hashes.SHA256()))
    sshsig.verify(sshsig.parse(blob(key, better)), NAME, TEXT)


def test_bytes_after_the_inner_signature() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    key, made = text(b"ssh-ed25519") + text(raw), text(b"ssh-ed25519") + text(private.sign(signed()))
    sshsig.verify(sshsig.parse(blob(key, made)), NAME, TEXT)
    refused(blob(key, made + b"\0"), "it does not fit the text and the key")
    refused(blob(key + b"\0", made), "its key cannot be read")


def sk_message(flags: int) -> bytes:
    about = hashlib.sha256(b"ssh:").digest() + bytes([flags]) + (7).to_bytes(4, "big")
    return about + hashlib.sha256(signed()).digest()


@pytest.mark.parametrize(("flags", "accepted"), [(1, True), (5, True), (0, False), (4, False)])
def test_security_keys_must_have_been_touched(flags: int, accepted: bool) -> None:
    tail = bytes([flags]) + (7).to_bytes(4, "big")
    private = ed25519.Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    kind = b"sk-ssh-ed25519@openssh.com"
    edwards = blob(text(kind) + text(raw) + text(b"ssh:"), text(kind) + text(private.sign(sk_message(flags))) + tail)
    for made in (edwards, sk_ecdsa(flags, tail)):
        if accepted:
            sshsig.verify(sshsig.parse(made), NAME, TEXT)
        else:
            refused(made, "it does not fit the text and the key")


def sk_ecdsa(flags: int, tail: bytes) -> bytes:
    private = ec.generate_private_key(ec.SECP256R1())
    point = private.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    kind = b"sk-ecdsa-sha2-nistp256@openssh.com"
    r, s = decode_dss_signature(private.sign(sk_message(flags), ec.ECDSA(hashes.SHA256())))
    return blob(
        text(kind) + text(b"nistp256") + text(point) + text(b"ssh:"), text(kind) + text(mpint(r) + mpint(s)) + tail
    )


def test_a_key_that_is_no_point_on_its_curve() -> None:
    kind = b"ecdsa-sha2-nistp256"
    key = text(kind) + text(b"nistp256") + text(b"\4" + b"\1" * 64)
    refused(blob(key, text(kind) + text(mpint(1) + mpint(1))), "its key cannot be read")
