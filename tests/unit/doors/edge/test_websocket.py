"""If frames were miscounted, a close frame would land in the middle of somebody's message."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ussycode.doors.edge.websocket import Frames, close_frame, masked_close_frame


def frame(payload: bytes, masked: bool) -> bytes:
    """One binary frame."""
    size = len(payload)
    short = size if size < 126 else 126 if size < 65536 else 127
    wide = b"" if short < 126 else size.to_bytes(2 if short == 126 else 8, "big")
    return bytes([0x82, short | (0x80 if masked else 0)]) + wide + (b"mask" if masked else b"") + payload


SIZES = st.sampled_from([0, 1, 125, 126, 127, 300, 65535, 65536, 70_000])


@given(st.lists(st.tuples(SIZES, st.booleans()), max_size=6), st.lists(st.integers(1, 90_000), max_size=12))
def test_frames_end_where_they_end_however_they_come(frames: list[tuple[int, bool]], cuts: list[int]) -> None:
    whole = [frame(b"x" * size, masked) for size, masked in frames]
    ends = {0}
    for one in whole:
        ends.add(max(ends) + len(one))
    data, at, follows = b"".join(whole), 0, Frames()
    for size in [*cuts, len(data)]:
        piece = data[at : at + size]
        follows.feed(piece)
        at += len(piece)
        assert follows.between == (at in ends)
    assert follows.between


@given(SIZES, st.booleans(), st.integers(1, 40), st.binary(max_size=40))
def test_the_rest_of_a_frame_is_all_that_is_let_through(size: int, masked: bool, cut: int, after: bytes) -> None:
    one = frame(b"y" * size, masked)
    cut = min(cut, len(one) - 1)
    follows = Frames()
    follows.feed(one[:cut])
    assert follows.rest(one[cut:] + after) == one[cut:] and follows.between
    assert follows.rest(after) == b""


def test_close_frames_are_whole_frames() -> None:
    assert close_frame(1012) == b"\x88\x02\x03\xf4"
    masked = masked_close_frame(1001)
    assert masked[:2] == b"\x88\x82"
    assert bytes(a ^ b for a, b in zip(masked[6:], masked[2:6], strict=False)) == b"\x03\xe9"
    for one in (close_frame(1012), masked):
        follows = Frames()
        follows.feed(one)
        assert follows.between
