"""Tokens: made by the platform or signed offline, listed, limited, revoked; each opens one place and nothing else."""
from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.signing import TOUCHED, VERIFIED, SecurityKey, Signer, b64
from tests.product.web_world import WebWorld, web_world
from ussycode.sharing import ops as sharing
from ussycode.tokens import ops
from ussycode.wire.edge import CheckToken, EdgeToken

MAY = ["help", "ls", "new", "whoami", "ssh-key list", "ssh-key remove", "ssh-key generate-api-key", "usy0-to-usy1",
       "ssh-key revoke-token", "ssh-key add", "rename"]
ALL = json.dumps({"cmds": MAY})


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


async def over_ssh(place: WebWorld, line: str) -> dict[str, object]:
    found = await place.base.run(place.caller, line)
    assert found.failure is None, found.failure
    assert found.view is not None
    return found.view.document()  # type: ignore[return-value]


async def shown_to_vm(place: WebWorld, token: str, name: str = "demo") -> EdgeToken:
    vms = {v["vm_name"] for v in (await place.exec("ls", place.alice.token(ALL))).json["vms"]}
    found = await sharing.facts_of(place.app, name) if name in vms else None
    return await place.tokens.for_edge(CheckToken(1, name, token), found.vm if found else "")


async def test_a_token_made_here_runs_what_it_lists_until_it_is_removed(place: WebWorld) -> None:
    made = await over_ssh(place, "ssh-key generate-api-key --label ci --cmds 'ls,ssh-key list' --exp 12h")
    assert made["label"] == "ci" and made["namespace"] == "v0@localhost"
    token = str(made["token"])
    assert token.startswith("usy1.")
    assert (await place.exec("ls", token)).json == {"vms": []}
    assert (await place.exec("new", token)).status == 403
    listed = (await place.exec("ssh-key list", token)).json["tokens"]
    assert [(t["label"], t["cmds"]) for t in listed] == [("ci", ["ls", "ssh-key list"])]
    assert token not in json.dumps(listed)
    await over_ssh(place, "ssh-key remove ci")
    refused = await place.exec("ls", token)
    assert (refused.status, refused.json) == (401, {"error": "the token is unknown or was revoked"})


async def test_last_use_is_kept_and_shown(place: WebWorld) -> None:
    token = str((await over_ssh(place, "ssh-key generate-api-key"))["token"])
    await place.exec("ls", token)
    await ops.write_uses(place.app)
    (listed,) = (await over_ssh(place, "ssh-key list"))["tokens"]  # type: ignore[misc]
    assert listed["last_used_at"].startswith("20")
    assert listed["label"] == "token-1"


async def test_a_token_is_over_when_its_time_is(place: WebWorld) -> None:
    token = str((await over_ssh(place, "ssh-key generate-api-key --exp 30m"))["token"])
    assert (await place.exec("ls", token)).status == 200
    place.base.clock.advance(30 * 60)
    assert (await place.exec("ls", token)).json == {"error": "the token has expired"}


async def test_a_token_makes_only_narrower_ones(place: WebWorld) -> None:
    """A leaked token of one day must not turn into one that lives for ever or does more."""
    made = await over_ssh(place, "ssh-key generate-api-key --cmds 'ls,ssh-key generate-api-key' --exp 1d")
    parent = str(made["token"])
    wider = await place.exec("ssh-key generate-api-key --cmds ls,new --exp 12h", parent)
    assert (wider.status, "it would run new" in wider.json["error"]) == (403, True)
    longer = await place.exec("ssh-key generate-api-key --cmds ls --exp never", parent)
    assert "it would live longer" in longer.json["error"]
    assert (await place.exec("ssh-key generate-api-key --cmds ls --exp 12h", parent)).status == 200


async def test_a_signed_token_becomes_a_short_one_that_ends_with_its_key(place: WebWorld) -> None:
    signed = place.alice.token('{"cmds":["ls"],"ctx":{"role": "ci"}}')
    made = (await place.exec(f"exe0-to-exe1 {signed}", place.alice.token(ALL))).json
    short = made["token"]
    assert (await place.exec("ls", short)).status == 200
    assert (await place.exec("new", short)).status == 403
    await over_ssh(place, "ssh-key add ssh-ed25519 " + "AAAAC3NzaC1lZDI1NTE5AAAAI" + "G" * 42 + "A two")
    await over_ssh(place, "ssh-key remove ed25519")
    assert (await place.exec("ls", short)).status == 401
    assert (await place.exec("ls", signed)).status == 401


async def test_a_signed_token_can_be_revoked_alone(place: WebWorld) -> None:
    one, other = place.alice.token('{"cmds":["ls"]}'), place.alice.token('{"cmds":["ls","new"]}')
    assert (await place.exec("ls", one)).status == 200
    await place.exec(f"ssh-key revoke-token {one}", place.alice.token(ALL))
    assert (await place.exec("ls", one)).json == {"error": "the token was revoked"}
    assert (await place.exec("ls", other)).status == 200


async def test_a_token_of_a_vm_opens_that_vm_and_not_the_api(place: WebWorld) -> None:
    for name in ("demo", "shop"):
        await over_ssh(place, f"new --name {name}")
    made = await over_ssh(place, "ssh-key generate-api-key --vm demo")
    token = str(made["token"])
    assert made["namespace"] == "v0@demo.localhost"
    assert (await shown_to_vm(place, token)).user == place.caller.user
    assert (await shown_to_vm(place, token, "shop")).refused == "token.namespace"
    assert (await place.exec("ls", token)).json["error"].startswith("the token was made for another place")
    await over_ssh(place, "rename demo blog")
    assert (await shown_to_vm(place, token, "blog")).user == place.caller.user


async def test_a_signed_token_of_a_vm_carries_its_context_byte_for_byte(place: WebWorld) -> None:
    await over_ssh(place, "new --name demo")
    context = '{"role" : "ci",  "n":1.50, "x":"\\u00e9"}'
    token = place.alice.token(f'{{"ctx": {context} }}', "v0@demo.localhost")
    assert (await shown_to_vm(place, token)).ctx == context
    assert (await shown_to_vm(place, place.alice.token(ALL))).refused == "token.namespace"
    assert (await place.exec("ls", token)).status == 401


async def test_every_refusal_is_counted_by_its_reason(place: WebWorld, tmp_path: Path) -> None:
    bad = {
        "token.missing": "", "token.malformed": "usy0.nonsense", "token.unknown": "usy1.nonsense",
        "token.expired": place.alice.token('{"exp":1000000000}'), "token.namespace": place.alice.token("{}", "v0@x"),
        "token.not_yet": place.alice.token('{"nbf":4000000000}'), "token.payload": place.alice.token('{"a":1}'),
    }
    revoked, stranger = place.alice.token('{"cmds":["ls"],"ctx":1}'), Signer.make(tmp_path, "ecdsa-256")
    await place.exec(f"ssh-key revoke-token {revoked}", place.alice.token(ALL))
    kind, payload, _ = place.alice.token().split(".")
    bad |= {
        "token.revoked": revoked, "token.key_unknown": stranger.token(),
        "token.signature": f"{kind}.{payload}.{b64(place.alice.signature(b'another payload'))}",
    }
    for code, token in bad.items():
        refused = await place.ask("POST", "https://localhost:8443/exec", data="ls",
                                  headers={"Authorization": f"Bearer {token}"})
        assert refused.status == 401, code
    assert (await place.exec("new", place.alice.token('{"cmds":["ls"]}'))).status == 403
    counted = place.app.telemetry.metrics().decode()
    for code in (*bad, "token.scope"):
        assert f'ussycode_tokens_total{{result="{code}"}} 1.0' in counted


async def test_somebody_elses_vm_looks_like_none(place: WebWorld) -> None:
    bob = await place.base.person("bob")
    await place.base.does(bob, "new --name bobs")
    for name in ("bobs", "nothing-here"):
        refused = await place.exec(f"ssh-key generate-api-key --vm {name}", place.alice.token(ALL))
        assert (refused.status, refused.json) == (422, {"error": f"no VM named {name}"})


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
async def test_a_security_key_signs_when_it_is_touched(place: WebWorld, kind: str) -> None:
    key = SecurityKey(kind)
    await over_ssh(place, f"ssh-key add {key.line}")
    for key.flags, status in ((TOUCHED, 200), (TOUCHED | VERIFIED, 200), (0, 401), (VERIFIED, 401)):
        assert (await place.exec("whoami", key.token())).status == status
    key.flags = TOUCHED
    await over_ssh(place, "new --name demo")
    said = await shown_to_vm(place, key.token('{"ctx":1}', "v0@demo.localhost"))
    assert (said.ctx, said.refused) == ("1", "")
    short = str((await over_ssh(place, f"usy0-to-usy1 {key.token()}"))["token"])
    assert (await place.exec("whoami", short)).status == 200
    await over_ssh(place, f"ssh-key remove {kind}-key")
    assert (await place.exec("whoami", short)).status == 401


async def test_the_other_spellings_mean_the_same(place: WebWorld) -> None:
    signed = place.alice.token(ALL)
    spelled = signed.replace("usy0.", "exe0.")
    assert (await place.exec("whoami", spelled)).json["handle"] == "alice"
    for command in ("usy0-to-usy1", "exe0-to-exe1"):
        short = str((await over_ssh(place, f"{command} {spelled}"))["token"])
        assert (await place.exec("whoami", short.replace("usy1.", "exe1."))).json["handle"] == "alice", command
    await over_ssh(place, f"ssh-key revoke-token {spelled}")
    assert [(await place.exec("whoami", t)).status for t in (signed, spelled)] == [401, 401]


async def test_a_revoked_token_stays_revoked_with_another_signature_and_takes_its_short_one_along(
    place: WebWorld,
) -> None:
    key = SecurityKey("ecdsa")
    await over_ssh(place, f"ssh-key add {key.line}")
    first, second = key.token(ALL), key.token(ALL)
    assert first != second
    short = str((await over_ssh(place, f"usy0-to-usy1 {first}"))["token"])
    assert [(await place.exec("whoami", t)).status for t in (first, second, short)] == [200] * 3
    await over_ssh(place, f"ssh-key revoke-token {first}")
    assert [(await place.exec("whoami", t)).status for t in (first, second, short)] == [401] * 3
    assert (await place.exec("whoami", key.token(ALL.replace(" ", "")))).status == 200
    assert (await over_ssh(place, "ssh-key list"))["revoked_tokens"] == 1
