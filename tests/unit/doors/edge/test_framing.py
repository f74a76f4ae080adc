"""A body ends in exactly one place, however its bytes arrive."""
from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ussycode.doors.edge.fields import trailer_allowed
from ussycode.doors.edge.framing import ByChunks, ByLength, Framing, Malformed

BODY = b"5\r\nhello\r\n1;ext=1\r\n!\r\n0\r\nX-Ussycode-Email: evil\r\nX-Sum: 1\r\n\r\n"
CLEAN = b"5\r\nhello\r\n1;ext=1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"


def feed_in(framing: Framing, data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Feed `data` cut at `cuts`; what passed, and what was left over."""
    out, rest = b"", b""
    edges = [0, *sorted(cuts), len(data)]
    for begin, end in itertools.pairwise(edges):
        if framing.done:
            rest += data[begin:end]
            continue
        own, left = framing.feed(data[begin:end])
        out, rest = out + own, rest + left
    return out, rest


@given(st.lists(st.integers(0, len(BODY) + 4), max_size=12))
def test_chunks_end_at_the_same_byte_however_they_are_cut(cuts: list[int]) -> None:
    framing = ByChunks(trailer_allowed)
    assert feed_in(framing, BODY + b"GET ", cuts) == (CLEAN, b"GET ")
    assert framing.done


def test_one_byte_at_a_time() -> None:
    framing = ByChunks(trailer_allowed)
    assert feed_in(framing, BODY + b"GET ", list(range(len(BODY) + 4))) == (CLEAN, b"GET ")


@pytest.mark.parametrize("raw", [
    b"5\nhello\r\n", b"5\r\nhelloX\r\n", b"5\r\nhello\n0\r\n\r\n", b"-5\r\n", b"0x5\r\n", b"\r\n", b" 5\r\n",
    b"5 ;\x00\r\n", b"ffffffffffffffff\r\n", b"5;a\nb\r\n", b"5" + b"0" * 5000, b"5;" + b"a" * 5000 + b"\r\n",
    b"0\r\nbad trailer\r\n\r\n", b"0\r\n X: folded\r\n\r\n", b"0\r\n" + b"A: b\r\n" * 3000,
])
def test_loose_chunks_are_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        ByChunks().feed(raw)


@given(st.lists(st.integers(0, 12), max_size=5))
def test_a_length_is_kept_to_the_byte(cuts: list[int]) -> None:
    assert feed_in(ByLength(10), b"0123456789ab", cuts) == (b"0123456789", b"ab")


@given(st.binary(max_size=200))
def test_any_bytes_are_framed_or_refused(raw: bytes) -> None:
    framing = ByChunks()
    try:
        framing.feed(raw)
    except Malformed:
        return
    assert isinstance(framing.done, bool)
