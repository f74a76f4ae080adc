"""A payload is read strictly: one rule broken is one refusal, and nothing crashes the reader."""
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ussycode.tokens.payload import DEFAULT_COMMANDS, parse


def test_an_empty_object_has_the_default_commands() -> None:
    assert parse(b"{}").commands == DEFAULT_COMMANDS


def test_no_commands_means_none() -> None:
    assert parse(b'{"cmds":[]}').commands == frozenset()


def test_all_four_fields() -> None:
    made = parse(b'{"exp": 2000000000, "nbf":946684800, "cmds":["ssh demo","ls"], "ctx":{"a":[1,null]}}')
    assert (made.exp, made.nbf, made.commands) == (2_000_000_000, 946_684_800, frozenset({"ssh demo", "ls"}))
    assert made.ctx == '{"a":[1,null]}'


@pytest.mark.parametrize(("raw", "why"), [
    (b"", "it is not JSON"),
    (b"\xff{}", "it is not UTF-8"),
    (b" {}", "white space stands at its beginning or end"),
    (b"{}\t", "white space stands at its beginning or end"),
    ("{}\u2003".encode(), "white space stands at its beginning or end"),
    (b'{"ctx":\n1}', "it has a line break"),
    (b'{"ctx":\r1}', "it has a line break"),
    (b'{"ctx":"a\x00"}', "it has a NUL byte"),
    (b"[]", "it is not a JSON object"),
    (b"null", "it is not a JSON object"),
    (b"{}{}", "it is not JSON"),
    (b"{'exp':1}", "it is not JSON"),
    (b'{"ctx":NaN}', "it is not JSON"),
    (b'{"ctx":-Infinity}', "it is not JSON"),
    (b'{"exp":2000000000,"exp":2000000001}', "a key stands in it twice"),
    (b'{"ctx":{"a":{"b":1,"b":1}}}', "a key stands in it twice"),
    (b'{"ctx":{"a":1,"\\u0061":1}}', "a key stands in it twice"),
    (b'{"admin":true}', "'admin' is not one of exp, nbf, cmds, ctx"),
    (b'{"EXP":2000000000}', "'EXP' is not one of exp, nbf, cmds, ctx"),
    (b'{"exp":2e9}', "exp is not a whole number"),
    (b'{"exp":2000000000.0}', "exp is not a whole number"),
    (b'{"exp":"2000000000"}', "exp is not a whole number"),
    (b'{"exp":true}', "exp is not a whole number"),
    (b'{"exp":null}', "exp is not a whole number"),
    (b'{"exp":946684799}', "exp is outside 946684800 to 4102444800"),
    (b'{"nbf":4102444801}', "nbf is outside 946684800 to 4102444800"),
    (b'{"nbf":-1}', "nbf is outside 946684800 to 4102444800"),
    (b'{"cmds":"ls"}', "cmds is not a list of command names"),
    (b'{"cmds":null}', "cmds is not a list of command names"),
    (b'{"cmds":["ls",1]}', "cmds is not a list of command names"),
    (b'{"cmds":[""]}', "cmds has more than 256 names, or one that is empty or too long"),
    (b'{"ctx":' + b"[" * 5000 + b"]" * 5000 + b"}", "it is nested too deeply"),
])
def test_each_broken_rule_is_named(raw: bytes, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse(raw)
    assert str(refused.value) == why


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_anything_is_read_or_refused(raw: bytes) -> None:
    try:
        parse(raw)
    except ValueError:
        return


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["exp", "nbf", "cmds", "ctx", "x"]), VALUES))
def test_what_is_read_obeys_the_rules(document: dict[str, object]) -> None:
    try:
        made = parse(json.dumps(document).encode(errors="surrogatepass"))
    except ValueError:
        return
    assert "x" not in document
    assert made.exp == document.get("exp") and made.nbf == document.get("nbf")
    if "cmds" in document:
        assert made.commands == frozenset(document["cmds"])  # type: ignore[call-overload]
