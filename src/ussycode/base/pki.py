"""The local certificate authority: a root kept by control, a constrained intermediate, leaves by name.

    Authority               the root (10 years); makes intermediates, lives in a folder, key mode 0600
      Intermediate          may sign only names under one domain (what an edge is given), or none of them (control's,
                            for domains of owners)
        Issuer              mints exact-name leaves with it; clients refuse `*.localhost`, so no wildcard
"""
from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ussycode.base.clock import Clock
from ussycode.base.errors import ErrorCode, Kind

ROOT_LIFE = dt.timedelta(days=3650)
INTERMEDIATE_LIFE = dt.timedelta(days=365)
LEAF_LIFE = dt.timedelta(days=30)
FOREIGN = "ussycode domains beside "
"""Begin of the name of whoever signs for domains of owners."""
BACKDATE = dt.timedelta(minutes=5)
"""Certificates begin this much in the past, for clients whose clock runs behind."""

BAD_AUTHORITY = ErrorCode(
    "pki.bad_authority", Kind.FAILED, "the certificate authority in {folder} cannot be read: {why}",
    hint="restore root.pem and root.key from a backup, or move the folder away to make a new one",
)


@dataclass(frozen=True)
class Intermediate:
    """Certificate and private key, both PEM, of a signer that may sign some names only."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Leaf:
    """A server certificate for exact names, `name` the first: PEM chain (leaf, intermediate), PEM key, unix end."""

    name: str
    chain: bytes
    key: bytes
    expires: float


class Authority:
    """The root of trust that users import once."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._certificate = certificate
        self._key = key
        self._clock = clock

    @classmethod
    def make(cls, clock: Clock) -> Authority:
        """A fresh root that lives 10 years and signs one level of intermediates."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("ussycode local root")
        builder = _builder(name, name, key.public_key(), clock, ROOT_LIFE)
        builder = _signer(builder, path_length=1)
        return cls(builder.sign(key, hashes.SHA256()), key, clock)

    @property
    def root_pem(self) -> bytes:
        """The root certificate, PEM: what clients trust (`curl --cacert`)."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """The root's private key, PEM. Never leaves control."""
        return _key_pem(self._key)

    def intermediate(self, domain: str) -> Intermediate:
        """A signer for `domain` and its subdomains only; one year; cannot make further signers."""
        limit = x509.NameConstraints([x509.DNSName(domain)], None)
        return self._intermediate(f"ussycode edge for {domain}", limit)

    def foreign_intermediate(self, domain: str) -> Intermediate:
        """A signer for every name but `domain` and its subdomains; one year. For control, never for an edge."""
        limit = x509.NameConstraints(None, [x509.DNSName(domain)])
        return self._intermediate(f"{FOREIGN}{domain}", limit)

    def _intermediate(self, subject_name: str, limit: x509.NameConstraints) -> Intermediate:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(subject_name[:64])
        builder = _builder(subject, self._certificate.subject, key.public_key(), self._clock, INTERMEDIATE_LIFE)
        builder = _signer(builder, path_length=0)
        builder = builder.add_extension(_issued_by(self._key), critical=False)
        builder = builder.add_extension(limit, critical=True)
        signed = builder.sign(self._key, hashes.SHA256())
        return Intermediate(signed.public_bytes(serialization.Encoding.PEM), _key_pem(key))


class Issuer:
    """Mints leaves with an intermediate. All leaves of one issuer share one key, made with it."""

    def __init__(self, intermediate: Intermediate, clock: Clock) -> None:
        self._chain_tail = intermediate.certificate
        self._certificate = x509.load_pem_x509_certificate(intermediate.certificate)
        self._key = _ec_key(intermediate.key)
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_pem = _key_pem(self._leaf_key)
        self._clock = clock

    def stands_with(self, chain: bytes) -> bool:
        """Whether who trusts this signer trusts a chain of an earlier one: both come from the same root."""
        tail = x509.load_pem_x509_certificates(chain)[-1]
        return _issuer_key(tail) == _issuer_key(self._certificate)

    def leaf(self, name: str, *more: str) -> Leaf:
        """A certificate for exactly these lower-case DNS names, 30 days or as long as the intermediate."""
        life = min(LEAF_LIFE, self._certificate.not_valid_after_utc - _now(self._clock))
        # No common name: it may not exceed 64 characters, and the alternative name is what clients read.
        builder = _builder(x509.Name([]), self._certificate.subject, self._leaf_key.public_key(), self._clock, life)
        for extension, critical in _leaf_extensions((name, *more), self._key):
            builder = builder.add_extension(extension, critical=critical)
        signed = builder.sign(self._key, hashes.SHA256())
        chain = signed.public_bytes(serialization.Encoding.PEM) + self._chain_tail
        return Leaf(name, chain, self._leaf_pem, signed.not_valid_after_utc.timestamp())


def open_authority(folder: Path, clock: Clock) -> Authority:
    """The authority kept in `folder` (`root.pem`, `root.key` mode 0600); made on first use.

    Raises BAD_AUTHORITY when one file is missing, unreadable, or they do not belong together.
    """
    certificate, key = folder / "root.pem", folder / "root.key"
    if not certificate.exists() and not key.exists():
        _keep(folder, Authority.make(clock))
    try:
        read = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = _ec_key(key.read_bytes())
    except (OSError, ValueError) as why:
        raise BAD_AUTHORITY(folder=folder, why=why) from why
    if read.public_key() != private.public_key():
        raise BAD_AUTHORITY(folder=folder, why="root.pem and root.key do not belong together")
    return Authority(read, private, clock)


def _keep(folder: Path, authority: Authority) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(folder / "root.key", authority.key_pem(), 0o600)
    _write(folder / "root.pem", authority.root_pem, 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    draft = path.with_suffix(path.suffix + ".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, clock: Clock, life: dt.timedelta,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(_now(clock) - BACKDATE).not_valid_after(_now(clock) + life)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _signer(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    return builder.add_extension(_usage(signs_certificates=True), critical=True)


def _leaf_extensions(
    names: Sequence[str], issuer: ec.EllipticCurvePrivateKey,
) -> list[tuple[x509.ExtensionType, bool]]:
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), True),
        (_issued_by(issuer), False),
    ]


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )


def is_local(chain: bytes) -> bool:
    """Whether a leaf was made by a signer for domains of owners, and not by a public authority."""
    named = x509.load_pem_x509_certificate(chain).issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return any(str(name.value).startswith(FOREIGN) for name in named)


def _issuer_key(certificate: x509.Certificate) -> bytes | None:
    return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier


def _issued_by(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _now(clock: Clock) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(clock.now()), dt.UTC)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption(),
    )


def _ec_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not an elliptic-curve key")
    return key
