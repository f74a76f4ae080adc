"""A guest may say anything: whatever arrives is either understood or a declared failure."""
from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors, protocol
from ussycode.runtime.guest.protocol import ControlDecoder, Kind, Op

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
pairs = st.lists(st.tuples(texts, texts), max_size=8).map(tuple)
NONCE = b"0123456789abcdef"
SECRET = "5e" * 32


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(pairs)
def test_pairs_come_back_as_they_were(given_pairs: protocol.Pairs) -> None:
    assert protocol.decode_pairs(protocol.encode_pairs(given_pairs)) == given_pairs


@given(st.lists(pairs, max_size=4), st.integers(1, 40), st.binary(max_size=30))
def test_frames_come_back_however_they_are_cut(sent: list[protocol.Pairs], size: int, stale: bytes) -> None:
    wire = stale + protocol.SYNC + NONCE + b"".join(protocol.encode_frame(Kind.OK, p) for p in sent)
    decoder = ControlDecoder(NONCE)
    frames = [frame for piece in in_pieces(wire, size) for frame in decoder.feed(piece)]
    assert [frame.pairs for frame in frames] == sent


def test_nothing_counts_before_the_answer_to_our_own_sync() -> None:
    decoder = ControlDecoder(NONCE)
    old = protocol.SYNC + b"f" * 16 + protocol.encode_frame(Kind.HELLO, (("version", "1"),))
    assert decoder.feed(old) == []
    assert len(decoder.feed(protocol.SYNC + NONCE + protocol.encode_frame(Kind.HELLO, ()))) == 1


def test_silence_about_the_sync_does_not_fill_memory() -> None:
    decoder = ControlDecoder(NONCE)
    for _ in range(100):
        decoder.feed(b"x" * 10_000)
    assert len(decoder.buffer) < 100


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_on_the_control_channel_are_frames_or_a_declared_failure(noise: bytes, size: int) -> None:
    decoder = ControlDecoder(NONCE, synced=True)
    with contextlib.suppress(Failure):
        for piece in in_pieces(noise, size):
            decoder.feed(piece)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_reply_are_understood_or_refused(noise: bytes) -> None:
    for data in (noise, b"OK" + noise, b"ER\0\0\0\x10" + noise):
        with contextlib.suppress(Failure):
            protocol.parse_reply(data)


def test_a_frame_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(Failure) as refused:
        ControlDecoder(NONCE, synced=True).feed(b"\x7f\xff\xff\xff\x02")
    assert refused.value.error is errors.PROTOCOL


@pytest.mark.parametrize("data", [b"key\0", b"key", b"a\0b\0c\0", b"\0" * (4 * protocol.MAX_PAIRS)])
def test_half_pairs_and_too_many_pairs_are_refused(data: bytes) -> None:
    with pytest.raises(Failure):
        protocol.decode_pairs(data)


def test_a_value_with_nul_cannot_smuggle_another_pair() -> None:
    with pytest.raises(Failure):
        protocol.encode_pairs((("env", "A=1\0verb\0shutdown"),))


def test_a_dial_in_one_write_and_a_reply_in_pieces() -> None:
    hello = protocol.dial_hello(SECRET, 8000)
    assert hello == b"USSY1 " + SECRET.encode() + b"\0\0\0\x14verb\0dial\0port\x008000\0"
    wire = b"OK\0\0\0\x04" + b"a\0b\0" + b"HTTP/1.1 200"
    for cut in range(10):
        assert protocol.parse_reply(wire[:cut]) is None
    reply = protocol.parse_reply(wire)
    assert reply is not None and reply.ok and reply.fields == {"a": "b"}
    assert wire[reply.used :] == b"HTTP/1.1 200"


def test_an_error_reply_becomes_the_declared_failure() -> None:
    body = protocol.encode_pairs((("code", "refused"), ("message", "dial: Connection refused")))
    reply = protocol.parse_reply(b"ER" + len(body).to_bytes(4, "big") + body)
    assert reply is not None and not reply.ok
    assert reply.failure.error is errors.REFUSED


def test_an_unknown_error_code_is_a_failure_that_shows_cleaned_and_bounded_text() -> None:
    failure = errors.from_wire({"code": "{nonsense}", "message": "\x1b[2J" + "x" * 10_000})
    assert failure.error is errors.FAILED
    assert "\x1b" not in failure.sentence and len(failure.sentence) < 300


def test_a_malformed_secret_never_reaches_the_wire() -> None:
    with pytest.raises(Failure):
        protocol.dial_hello("secret", 80)


def test_exec_frames_are_bounded() -> None:
    assert protocol.parse_op_head(protocol.encode_op(Op.STDOUT, b"abc")[:5]) == (Op.STDOUT, 3)
    with pytest.raises(Failure):
        protocol.parse_op_head(b"\x01\x00\x01\x00\x01")


@pytest.mark.parametrize("size", [*range(240, 300), 510, 511, 767, *range(65_270, 65_540)])
def test_no_length_of_a_frame_looks_like_the_beginning_of_a_sync(size: int) -> None:
    frame = protocol.encode_frame(protocol.Kind.REQUEST, (("v", "x" * (size - 3)),))
    length = int.from_bytes(frame[:4], "big")
    assert protocol.SYNC[:1] not in frame and length == len(frame) - 5
    assert dict(protocol.decode_pairs(frame[5:]))["v"] == "x" * (size - 3)
