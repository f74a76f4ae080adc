"""The helpers of the guide make tokens that work, for commands and for a VM's address, with every kind of key."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.signing import KINDS, Signer
from tests.product.web_world import HOME, WebWorld, web_world
from ussycode.identity import ops as identity
from ussycode.sharing import ops as sharing
from ussycode.wire.edge import CheckToken

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
MAY, CONTEXT = '{"cmds":["whoami"],"exp":2000000000}', '{"ctx":{"b":[1, 2.50],"a":"\\u00e4"}}'
HELPERS = {
    "shell": lambda key, place, said: ("sh", "-euc", f". {GUIDE / 'token.sh'}; ussycode_token {key} {place} '{said}'"),
    "python": lambda key, place, said: (sys.executable, str(GUIDE / "ussycode_token.py"), str(key), place, said),
}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


def token(helper: str, signer: Signer, place: str, said: str) -> str:
    words = HELPERS[helper](signer.file, place, said)
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


@pytest.mark.parametrize("helper", HELPERS)
async def test_a_helper_s_token_does_what_it_says_and_no_more(place: WebWorld, helper: str) -> None:
    made = token(helper, place.alice, "localhost", MAY)
    assert (await place.exec("whoami", made)).json["handle"] == "alice"
    assert (await place.exec("ls", made)).status == 403


@pytest.mark.parametrize("helper", HELPERS)
async def test_a_helper_s_token_opens_one_vm_with_its_context_byte_for_byte(place: WebWorld, helper: str) -> None:
    await place.base.does(place.caller, "new --name demo")
    await place.base.does(place.caller, "new --name other")
    made = token(helper, place.alice, "demo.localhost", CONTEXT)
    for name, opens in (("demo", True), ("other", False)):
        found = await sharing.facts_of(place.app, name)
        assert found is not None
        said = await place.tokens.for_edge(CheckToken(1, name, made), found.vm)
        assert (said.ctx, said.refused) == ((CONTEXT[7:-1], "") if opens else ("", "token.namespace"))
    assert (await place.exec("whoami", made)).status == 401


@pytest.mark.parametrize("kind", KINDS)
async def test_python_signs_with_every_kind_of_key(place: WebWorld, tmp_path: Path, kind: str) -> None:
    (tmp_path / "more").mkdir()
    signer = Signer.make(tmp_path / "more", kind)
    await identity.register(place.app, signer.public, f"bob-{kind}", "bob")
    assert (await place.exec("whoami", token("python", signer, "localhost", MAY))).json["handle"] == f"bob-{kind}"


@pytest.mark.parametrize("name", ["token.sh", "ussycode_token.py"])
async def test_the_manual_serves_what_it_links(place: WebWorld, name: str) -> None:
    assert f"]({name})" in (GUIDE / "tokens.md").read_text()
    got = await place.ask("GET", f"{HOME}/docs/{name}")
    assert got.text == (GUIDE / name).read_text() and got.headers["Content-Type"].startswith("text/plain")
