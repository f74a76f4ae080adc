"""Checks X-Ussycode-Assertion offline; needs `pip install joserfc`. Ask for the keys once an hour."""
import json
import urllib.request

from joserfc import jwt
from joserfc.jwk import KeySet


def fetch_keys(issuer):
    with urllib.request.urlopen(f"{issuer}/.well-known/jwks.json", timeout=10) as answer:
        return KeySet.import_key_set(json.load(answer))


def verify(token, issuer, audience, keys):
    """The claims: `sub` is the user id, `email` is there when it is verified. Raises when nobody should believe it."""
    found = jwt.decode(token, keys, algorithms=["EdDSA"])
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience},
        sub={"essential": True}, exp={"essential": True},
    ).validate(found.claims)
    return found.claims
