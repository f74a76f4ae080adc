"""Whatever is typed becomes a name of DNS or a sentence, and what ends a wildcard ends its hosts alone."""
from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world import World, world
from ussycode.domains.names import MAX_NAME, parse
from ussycode.identity import store
from ussycode.identity.model import Session

LETTERS = st.text(st.sampled_from("aZ09-.*_ ßеüñ中あ\u202e\u0130\x00@/:"), max_size=40)

SHAPED = st.from_regex(r"(\*\.)?([a-z0-9-]{1,10}\.){1,4}[a-z]{2,5}", fullmatch=True)


@given(st.one_of(LETTERS, st.text(max_size=320), SHAPED))
def test_a_name_is_of_dns_or_is_refused_with_a_sentence(text: str) -> None:
    try:
        found = parse(text)
    except ValueError as why:
        assert str(why) and "\n" not in str(why)
        return
    assert found.name.isascii() and found.name == found.name.lower() and len(found.name) <= MAX_NAME
    assert "*" not in found.name and not found.name.endswith(".") and "." in found.name
    assert parse(str(found)) == found


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.mark.parametrize(("pattern", "ended"), [
    ("wild.test", {"wild.test"}), ("*.wild.test", {"a.wild.test", "b.wild.test"}),
    ("*.w_ld.test", set()), ("*.test", {"wild.test", "other.test"}),
])
async def test_a_wildcards_sign_ins_end_and_no_others(w: World, pattern: str, ended: set[str]) -> None:
    hosts = ("wild.test", "a.wild.test", "b.wild.test", "deep.a.wild.test", "xwild.test.org", "other.test")
    user = (await w.person("olive")).user

    def try_out(tx: object) -> set[str]:
        for host in hosts:
            store.insert_session(tx, Session(host, user, host, "", 0.0, 4e9, "", 0.0))  # type: ignore[arg-type]
        return set(store.delete_sessions_on(tx, pattern))  # type: ignore[arg-type]

    assert await w.app.db.write(try_out) == ended
