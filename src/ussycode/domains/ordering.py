"""Certificates for wildcards from an ACME server (RFC 8555), proven by records in our own zone (DNS-01)."""
from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa
from acme import challenges, client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from ussycode.base.clock import SystemClock
from ussycode.base.db import Tx, metadata
from ussycode.base.pki import Leaf
from ussycode.domains.certificates import Refused
from ussycode.domains.model import VmDomain
from ussycode.domains.policy import delegation_target
from ussycode.domains.zone import Zone
from ussycode.ports import App

ORDER_SECONDS = 120.0
"""Time of one order."""
REQUEST_SECONDS = 20
"""Time of one request to the server."""
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
MAX_PROBLEM = 300
"""Characters of what the server says that are kept."""

acme_accounts = sa.Table(
    "acme_accounts", metadata,
    sa.Column("directory", sa.String, primary_key=True),
    sa.Column("key", sa.LargeBinary, nullable=False),
)
"""Our account's key at each server, PEM."""


@dataclass(frozen=True)
class AcmeSigner:
    """Orders certificates. One order at a time: the caller waits for each."""

    app: App
    zone: Zone
    roots: str | bool = True
    """File of roots that the server's own HTTPS is trusted by; True for those of this host."""

    async def sign(self, domain: VmDomain) -> Leaf:
        """A certificate for a domain whose delegation leads into our zone. Raises Refused."""
        key = await self._account_key()
        holder = delegation_target(domain, self.app.config.delegation_zone)
        order = _Order(self.app.config.acme_directory or LETS_ENCRYPT, self.app.config.acme_email,
                       self.roots, key, self.zone, holder)
        try:
            return await asyncio.to_thread(order.run, domain.patterns)
        except (messages.Error, errors.Error, JoseError, OSError, ValueError) as why:
            raise Refused(_said(why)) from why

    async def _account_key(self) -> bytes:
        directory = self.app.config.acme_directory or LETS_ENCRYPT
        return await self.app.db.write(lambda tx: _account_key(tx, directory))


@dataclass(frozen=True)
class _Order:
    """One order in a thread of its own: the library waits."""

    directory: str
    email: str
    trusted: str | bool
    account_key: bytes
    zone: Zone
    holder: str

    def run(self, names: Sequence[str]) -> Leaf:
        acme = self._client()
        key = ec.generate_private_key(ec.SECP256R1())
        order = acme.new_order(_request(key, names))
        # The library compares with the local time, without a zone.
        deadline = dt.datetime.fromtimestamp(SystemClock().now() + ORDER_SECONDS)
        with ExitStack() as held:
            for authorization in order.authorizations:
                if authorization.body.status == messages.STATUS_PENDING:
                    self._answer(acme, authorization, held)
            done = acme.poll_and_finalize(order, deadline)
        chain = done.fullchain_pem.encode()
        certificate = x509.load_pem_x509_certificate(chain)
        return Leaf(names[0], chain, _pem(key), certificate.not_valid_after_utc.timestamp())

    def _answer(self, acme: client.ClientV2, authorization: Any, held: ExitStack) -> None:
        found = [c for c in authorization.body.challenges if isinstance(c.chall, challenges.DNS01)]
        if not found:
            raise ValueError("the server does not offer DNS-01")
        response, value = found[0].response_and_validation(acme.net.key)
        held.enter_context(self.zone.holding(self.holder, value))
        acme.answer_challenge(found[0], response)

    def _client(self) -> client.ClientV2:
        private = serialization.load_pem_private_key(self.account_key, password=None)
        # `verify_ssl` goes to requests as it is, which takes a file of roots too.
        net = client.ClientNetwork(
            JWKEC(key=private), alg=ES256, verify_ssl=cast(bool, self.trusted), user_agent="ussycode",
            timeout=REQUEST_SECONDS,
        )
        acme = client.ClientV2(client.ClientV2.get_directory(self.directory, net), net)
        wanted = messages.NewRegistration.from_data(email=self.email or None, terms_of_service_agreed=True)
        try:
            acme.new_account(wanted)
        except errors.ConflictError as known:
            acme.net.account = messages.RegistrationResource(body=messages.Registration(), uri=known.location)
        return acme


def _account_key(tx: Tx, directory: str) -> bytes:
    found = tx.conn.execute(sa.select(acme_accounts.c.key).where(acme_accounts.c.directory == directory)).first()
    if found is not None:
        return bytes(found[0])
    made = _pem(ec.generate_private_key(ec.SECP256R1()))
    tx.conn.execute(acme_accounts.insert(), {"directory": directory, "key": made})
    return made


def _request(key: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> bytes:
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = builder.add_extension(alternatives, critical=False).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption(),
    )


def _said(why: BaseException) -> str:
    """What went wrong, for the domain's owner."""
    if isinstance(why, errors.ValidationError):
        problems = [c.error.detail for a in why.failed_authzrs for c in a.body.challenges if c.error is not None]
        return f"the certificate authority refuses: {'; '.join(map(str, problems))}"[:MAX_PROBLEM]
    if isinstance(why, errors.TimeoutError):
        return "the certificate authority did not finish in time"
    if isinstance(why, OSError):  # those of requests are too
        return f"the certificate authority cannot be reached ({type(why).__name__})"
    return f"the certificate authority refuses: {why}"[:MAX_PROBLEM]
