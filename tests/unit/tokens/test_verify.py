"""A token is worth what its key and its own limits are worth now, not when it was first seen."""
from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.product.signing import Signer, b64
from tests.world import World, world
from ussycode.access.facts import Via
from ussycode.base.errors import Failure
from ussycode.identity import ops as identity
from ussycode.identity import store
from ussycode.tokens import verify as module
from ussycode.tokens.rate import MAX_BUCKETS, Buckets
from ussycode.tokens.verify import TokenVerifier


@dataclass
class Place:
    base: World
    alice: Signer
    tokens: TokenVerifier

    async def refused(self, token: str) -> str:
        with pytest.raises(Failure) as why:
            await self.tokens.verify(token)
        assert why.value.kind.status == 401
        return why.value.code


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with world() as base:
        alice = Signer.make(tmp_path)
        await identity.register(base.app, alice.public, "alice", "alice")
        tokens = TokenVerifier(base.app)
        base.app.db.listen(tokens.heard)
        yield Place(base, alice, tokens)


async def test_a_good_token_is_its_owner_within_its_commands(place: Place) -> None:
    caller = await place.tokens.verify(place.alice.token('{"cmds":["ls"]}'))
    assert (caller.handle, caller.via, caller.commands) == ("alice", Via.TOKEN, frozenset({"ls"}))
    assert caller.key == place.alice.public.fingerprint


async def test_spellings_that_are_no_token(place: Place) -> None:
    token = place.alice.token()
    payload, signature = token.split(".")[1:]
    bad = [
        "usy0", "usy0..", f"usy2.{payload}.{signature}", token + ".", " " + token,
        f"usy0.{payload}.{signature}=", f"usy0.{payload}=.{signature}", f"usy0.{payload}\n.{signature}",
        f"usy0.{payload}.{signature.replace('-', '+')}+", f"usy0.{payload}.é", "usy0.e31.AAAA",
        f"USY0.{payload}.{signature}",
    ]
    assert {await place.refused(b) for b in bad} == {"token.malformed"}
    assert await place.refused("") == "token.missing"
    assert await place.refused("usy0." + "A" * 8192) == "token.too_long"
    assert await place.refused(f"usy0.{payload}.AAAA") == "token.signature"


async def test_a_payload_that_was_not_signed(place: Place) -> None:
    signature = place.alice.token("{}").split(".")[2]
    assert await place.refused(f"usy0.{b64(b'{ }')}.{signature}") == "token.signature"


async def test_a_token_for_another_host(place: Place) -> None:
    assert await place.refused(place.alice.token("{}", "v0@other.host")) == "token.namespace"
    assert await place.refused(place.alice.token("{}", "v0@demo.localhost")) == "token.namespace"


async def test_a_signed_payload_that_breaks_a_rule(place: Place) -> None:
    assert await place.refused(place.alice.token('{"exp":2e9}')) == "token.payload"


async def test_a_key_nobody_registered(place: Place, tmp_path: Path) -> None:
    (tmp_path / "mallory").mkdir()
    assert await place.refused(Signer.make(tmp_path / "mallory").token()) == "token.key_unknown"


async def test_times_are_looked_at_on_every_use(place: Place) -> None:
    now = int(place.base.clock.now())
    token = place.alice.token(f'{{"nbf":{now + 10},"exp":{now + 20}}}')
    assert await place.refused(token) == "token.not_yet"
    place.base.clock.advance(10)
    await place.tokens.verify(token)
    place.base.clock.advance(10)
    assert await place.refused(token) == "token.expired"


async def test_a_new_role_is_seen_by_the_next_use(place: Place) -> None:
    token = place.alice.token()
    before = await place.tokens.verify(token)
    await identity.choose_handle(place.base.app, before.user, "alicia")
    assert (await place.tokens.verify(token)).handle == "alicia"


async def test_a_removed_key_ends_its_tokens_and_no_others(place: Place, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Signer.make(tmp_path / "second", "ecdsa-256")
    first, other = place.alice.token(), second.token()
    caller = await place.tokens.verify(first)
    await place.base.does(caller.__class__(caller.user, caller.handle), f"ssh-key add {second.public.line} second")
    await place.tokens.verify(other)
    await place.base.does(caller.__class__(caller.user, caller.handle), "ssh-key remove second")
    assert await place.refused(other) == "token.key_unknown"
    await place.tokens.verify(first)


async def test_good_tokens_are_remembered_without_asking_the_database(place: Place) -> None:
    token = place.alice.token()
    await place.tokens.verify(token)
    await place.base.app.db.write(lambda tx: store.delete_key(tx, store.keys_of(tx, _only(tx))[0].id))
    await place.tokens.verify(token)  # no event told it: so it was not looked up


def _only(tx: object) -> str:
    return store.all_users(tx)[0].id  # type: ignore[arg-type]


async def test_memory_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    for name in ("ls", "new", "whoami"):
        await place.tokens.verify(place.alice.token(f'{{"cmds":["{name}"]}}'))
    assert len(place.tokens._kept) == 2


async def test_checking_signatures_is_rate_limited_for_each_key(place: Place) -> None:
    place.tokens._new.burst = 1
    payload, signature = place.alice.token().split(".")[1:]
    assert await place.refused(f"usy0.{b64(b'{ }')}.{signature}") == "token.signature"
    with pytest.raises(Failure) as why:
        await place.tokens.verify(f"usy0.{payload}.{signature}")
    assert (why.value.code, why.value.kind.status) == ("token.rate", 429)
    place.base.clock.advance(1)
    await place.tokens.verify(f"usy0.{payload}.{signature}")


async def test_buckets_refill_and_are_bounded(place: Place) -> None:
    buckets = Buckets.per_minute(place.base.clock, 60)
    assert [buckets.take("a") for _ in range(11)] == [0.0] * 10 + [1.0]
    place.base.clock.advance(1)
    assert (buckets.take("a"), buckets.take("a")) == (0.0, 1.0)
    for n in range(MAX_BUCKETS + 10):
        buckets.take(f"key-{n}")
    assert len(buckets._left) == MAX_BUCKETS
