"""The two ceremonies of WebAuthn: making a passkey and showing one. Pure; what is refused says why for the log alone.

Policy: the authenticator must know its person (PIN, finger, face), because a passkey is the only thing asked for; it
must keep the credential itself, so that nobody types a name; where it was made is not asked (attestation `none`).
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import cryptography.exceptions
import webauthn
from webauthn.helpers import base64url_to_bytes, exceptions, parse_attestation_object, structs

from ussycode.config import Config
from ussycode.identity.challenges import CHALLENGE_SECONDS

MAX_CREDENTIAL = 1023
"""Bytes of a credential's id, as WebAuthn section 5.8.3 bounds it."""
MAX_PUBLIC_KEY = 2048
"""Bytes of a public key; RSA with 4096 bits has about 540."""
_MALFORMED = (
    exceptions.WebAuthnException, cryptography.exceptions.UnsupportedAlgorithm, ValueError, LookupError, TypeError,
    AttributeError, ArithmeticError, RecursionError,
)
"""What the library and those below it raise on bytes that are no answer of an authenticator."""
_PLAIN_FORMS = ("none", "packed")
"""Forms of attestation that browsers send when none was asked for."""


class Refused(Exception):
    """Not what was asked for; the text is for the audit log."""


@dataclass(frozen=True)
class Place:
    """Whom passkeys are for (`rp_id`, the platform's domain) and the one page that may use them."""

    rp_id: str
    origin: str

    @classmethod
    def of(cls, config: Config) -> Place:
        """The platform's own: a page of a VM under the domain may ask for a passkey, but is refused here."""
        return cls(config.domain, config.host_url(config.domain)[:-1])


@dataclass(frozen=True)
class Made:
    """A fresh credential. `count` is 0 for authenticators that do not count; `synced` ones live on several devices."""

    credential: bytes
    public_key: bytes
    count: int
    synced: bool


@dataclass(frozen=True)
class Shown:
    """What an authenticator claims before it is checked: which credential, whose, over which challenge."""

    credential: bytes
    handle: bytes
    challenge: bytes
    answer: dict[str, Any]


def to_make(place: Place, challenge: bytes, handle: bytes, name: str, known: list[bytes]) -> str:
    """Options of `navigator.credentials.create` as JSON. `known` are the account's credentials: one device, one key."""
    return webauthn.options_to_json(webauthn.generate_registration_options(
        rp_id=place.rp_id, rp_name=place.rp_id, user_id=handle, user_name=name, challenge=challenge,
        timeout=CHALLENGE_SECONDS * 1000,
        authenticator_selection=structs.AuthenticatorSelectionCriteria(
            resident_key=structs.ResidentKeyRequirement.REQUIRED,
            user_verification=structs.UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[structs.PublicKeyCredentialDescriptor(id=credential) for credential in known],
    ))


def to_show(place: Place, challenge: bytes) -> str:
    """Options of `navigator.credentials.get` as JSON: any passkey that is for us."""
    return webauthn.options_to_json(webauthn.generate_authentication_options(
        rp_id=place.rp_id, challenge=challenge, timeout=CHALLENGE_SECONDS * 1000,
        user_verification=structs.UserVerificationRequirement.REQUIRED,
    ))


def challenge_of(answer: dict[str, Any]) -> bytes:
    """The challenge that an answer claims to be about. Raises Refused."""
    try:
        data = json.loads(base64url_to_bytes(answer["response"]["clientDataJSON"]))
        return base64url_to_bytes(data["challenge"])
    except _MALFORMED as why:
        raise Refused(f"malformed: {why}") from None


def made(place: Place, challenge: bytes, answer: dict[str, Any]) -> Made:
    """The credential that an authenticator made. Raises Refused."""
    try:
        form = parse_attestation_object(base64url_to_bytes(answer["response"]["attestationObject"])).fmt
        if form not in _PLAIN_FORMS:
            raise Refused(f"attestation {form}")
        found = webauthn.verify_registration_response(
            credential=answer, expected_challenge=challenge, expected_rp_id=place.rp_id, expected_origin=place.origin,
            require_user_verification=True,
        )
    except _MALFORMED as why:
        raise Refused(str(why)) from None
    if len(found.credential_id) > MAX_CREDENTIAL or len(found.credential_public_key) > MAX_PUBLIC_KEY:
        raise Refused("too long")
    synced = found.credential_device_type is structs.CredentialDeviceType.MULTI_DEVICE
    return Made(found.credential_id, found.credential_public_key, found.sign_count, synced)


def shown(answer: dict[str, Any]) -> Shown:
    """What an answer claims. Raises Refused."""
    try:
        parsed = webauthn.helpers.parse_authentication_credential_json(answer)
    except _MALFORMED as why:
        raise Refused(f"malformed: {why}") from None
    return Shown(parsed.raw_id, parsed.response.user_handle or b"", challenge_of(answer), answer)


def prove(place: Place, claim: Shown, public_key: bytes) -> int:
    """The authenticator's counter, once the claim is proven with the credential's key. Raises Refused."""
    try:
        return webauthn.verify_authentication_response(
            credential=claim.answer, expected_challenge=claim.challenge, expected_rp_id=place.rp_id,
            expected_origin=place.origin, credential_public_key=public_key, credential_current_sign_count=0,
            require_user_verification=True,
        ).new_sign_count
    except _MALFORMED as why:
        raise Refused(str(why)) from None
