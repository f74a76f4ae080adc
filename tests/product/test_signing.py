"""Keys for assertions: published before they sign, replaced each week, gone a day after."""
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.web_world import HOME, WebWorld, web_world
from ussycode.identity import signing
from ussycode.identity.signing import KEPT_SECONDS, LEAD_SECONDS, ROTATE_SECONDS
from ussycode.sharing import ops as sharing


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


async def published(place: WebWorld) -> list[str]:
    answer = await place.ask("GET", HOME + "/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=3600"
    assert all(set(key) == {"kty", "crv", "alg", "use", "kid", "x"} for key in answer.json["keys"])
    return [key["kid"] for key in answer.json["keys"]]


async def later(place: WebWorld, seconds: float) -> list[str]:
    place.base.clock.advance(seconds)
    await signing.rotate(place.app)
    return await published(place)


async def test_a_key_is_known_before_it_signs_and_a_day_after(place: WebWorld) -> None:
    first = await later(place, 0)
    assert len(first) == 1 and await later(place, ROTATE_SECONDS - LEAD_SECONDS - 1) == first
    both = await later(place, 1)
    assert both[0] == first[0] and len(both) == 2
    signers = (await sharing.edge_snapshot(place.app, 1)).signers
    assert [s.name for s in signers] == both and signers[1].signs_from == signers[0].signs_from + ROTATE_SECONDS
    assert await later(place, LEAD_SECONDS + KEPT_SECONDS - 1) == both
    assert (await later(place, 1)) == both[1:]


async def test_after_a_long_absence_a_new_key_signs_at_once(place: WebWorld) -> None:
    await later(place, 0)
    old, new = await later(place, 100 * 86_400)
    signers = {s.name: s.signs_from for s in (await sharing.edge_snapshot(place.app, 1)).signers}
    assert signers[new] == place.app.clock.now() and old in signers


async def test_edges_hear_of_a_change_and_of_nothing_else(place: WebWorld) -> None:
    changes = []

    async def hear(events: object) -> None:
        changes.append(await sharing.edge_change(place.app, 2, events))  # type: ignore[arg-type]

    place.app.db.listen(hear)
    await later(place, 0)
    assert [len(change.signers) for change in changes] == [1]
    await later(place, 60)
    assert len(changes) == 1


async def test_the_private_halves_stay_here(place: WebWorld) -> None:
    await later(place, 0)
    [signer] = (await sharing.edge_snapshot(place.app, 1)).signers
    assert signer.seed.hex() not in (await place.ask("GET", HOME + "/.well-known/jwks.json")).text
    assert (await place.ask("GET", "https://demo.localhost:8443/.well-known/jwks.json")).status == 404
