"""What the edge signs for apps, checked as an app checks it: offline, with a library of its own."""
from __future__ import annotations

import asyncio
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

from tests.contract.edge_rig import ALICE, BOB, Answer, Rig, running_edge, vm
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


def told(answer: Answer) -> tuple[list[str], list[str], list[str]]:
    """User ids, addresses and assertions that an app was told."""
    found = [(name.lower(), value) for name, value in json.loads(answer.body)["headers"]]
    ids, addresses, signed = ([v for n, v in found if n == name] for name in (
        "x-ussycode-userid", "x-ussycode-email", "x-ussycode-assertion"))
    return ids, addresses, [str(jwt.decode(t, published(OLD, NEW, LATER), algorithms=["EdDSA"]).claims["sub"])
                            for t in signed]


EXPECTED = {
    ALICE.user: ([ALICE.user], ["alice@example.org"], [ALICE.user]), BOB.user: ([BOB.user], [], [BOB.user]),
    "": ([], [], []),
}


async def test_a_hundred_requests_at_once_are_never_mixed_up(rig: Rig) -> None:
    cookies = {user.user: await rig.sign_in(user, "open.localhost") for user in (ALICE, BOB)} | {"": ""}
    people = [who for _ in range(34) for who in cookies][:100]
    answers = await asyncio.gather(*(rig.get("open.localhost", session=cookies[who]) for who in people))
    assert [told(answer) for answer in answers] == [EXPECTED[who] for who in people]


async def test_nor_are_people_who_share_a_connection(rig: Rig) -> None:
    cookies = {user.user: await rig.sign_in(user, "open.localhost") for user in (ALICE, BOB)} | {"": ""}
    client = await rig.connect("open.localhost")
    people = [ALICE.user, BOB.user, "", BOB.user, ALICE.user, "", ""] * 3
    for who in people:
        line = f"Cookie: __Host-ussycode={cookies[who]}\r\n" if who else ""
        await client.send(f"GET / HTTP/1.1\r\nHost: open.localhost:{rig.port}\r\n{line}\r\n".encode())
    assert [told(await client.answer()) for _ in people] == [EXPECTED[who] for who in people]
