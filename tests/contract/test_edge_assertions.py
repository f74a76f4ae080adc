"""What the edge signs for apps, checked as an app checks it: offline, with a library of its own."""
from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import KeySet

from tests.contract.edge_rig import ALICE, BOB, Rig, running_edge, vm
from ussycode.wire.edge import EdgeSigner

pytestmark = pytest.mark.asyncio(loop_scope="module")
OLD, NEW = EdgeSigner("sig_old", b"o" * 32, 1.0), EdgeSigner("sig_new", b"n" * 32, 2.0)
LATER = EdgeSigner("sig_later", b"l" * 32, 4e9)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with running_edge(tmp_path_factory.mktemp("edge")) as rig:
        for machine in (vm("demo"), vm("open", public_ports=(8000,)), vm("other")):
            await rig.app(machine)
        await rig.feed.change(signers=[OLD, LATER])
        yield rig


def published(*signers: EdgeSigner) -> KeySet:
    """The keys as `/.well-known/jwks.json` shows them."""
    return KeySet.import_key_set({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": s.name, "x": urlsafe_b64encode(
            Ed25519PrivateKey.from_private_bytes(s.seed).public_key().public_bytes_raw()).rstrip(b"=").decode()}
        for s in signers
    ]})


def checked(token: str, host: str, rig: Rig, keys: KeySet) -> dict[str, Any]:
    """The claims of a token for `host`; raises when an app must not believe it."""
    found = jwt.decode(token, keys, algorithms=["EdDSA"])
    rules = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": f"https://localhost:{rig.port}"}, aud={"essential": True, "value": host},
        sub={"essential": True}, exp={"essential": True},
    )
    rules.validate(found.claims)
    return found.claims


async def assertions(rig: Rig, host: str, session: str, headers: str = "") -> list[str]:
    answer = await rig.get(host, session=session, headers=headers)
    return [value for key, value in json.loads(answer.body)["headers"] if "assertion" in key.lower()]


async def test_an_app_learns_who_asks_without_calling_us(rig: Rig) -> None:
    [token] = await assertions(rig, "demo.localhost", await rig.sign_in(ALICE, "demo.localhost"))
    claims = checked(token, "demo.localhost", rig, published(OLD, LATER))
    assert claims["sub"] == "usr_alice" and claims["email"] == "alice@example.org"
    assert claims["exp"] - claims["iat"] == 300 and abs(claims["iat"] - time.time()) < 60


async def test_another_hosts_app_does_not_believe_it(rig: Rig) -> None:
    [token] = await assertions(rig, "demo.localhost", await rig.sign_in(ALICE, "demo.localhost"))
    with pytest.raises(JoseError):
        checked(token, "other.localhost", rig, published(OLD))
    head, body, signature = token.split(".")
    with pytest.raises(BadSignatureError):
        jwt.decode(f"{head}.{body}.{signature[::-1]}", published(OLD), algorithms=["EdDSA"])


async def test_an_address_that_is_not_proven_is_not_in_it(rig: Rig) -> None:
    [token] = await assertions(rig, "open.localhost", await rig.sign_in(BOB, "open.localhost"))
    claims = checked(token, "open.localhost", rig, published(OLD))
    assert claims["sub"] == "usr_bob" and "email" not in claims


async def test_it_is_not_made_for_each_request(rig: Rig) -> None:
    session = await rig.sign_in(ALICE, "demo.localhost")
    first = await assertions(rig, "demo.localhost", session)
    assert await assertions(rig, "demo.localhost", session) == first
    await rig.feed.change(put_vms=[vm("unrelated")])
    assert await assertions(rig, "demo.localhost", session) == first


@pytest.mark.parametrize("name", ["X-Ussycode-Assertion", "x_ussycode_assertion", "X-USSYCODE.Assertion"])
async def test_nobody_brings_their_own(rig: Rig, name: str) -> None:
    assert await assertions(rig, "open.localhost", "", f"{name}: forged\r\n") == []


async def test_a_new_key_signs_from_the_next_request_on(rig: Rig) -> None:
    session = await rig.sign_in(ALICE, "demo.localhost")
    await assertions(rig, "demo.localhost", session)
    await rig.feed.change(signers=[OLD, NEW, LATER])
    [token] = await assertions(rig, "demo.localhost", session)
    assert checked(token, "demo.localhost", rig, published(NEW))["sub"] == "usr_alice"
