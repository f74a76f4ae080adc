"""Where a mail ends, for any bytes: a reader that finds another end would let one mail hide in another."""
from __future__ import annotations

import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st

from ussycode.doors.smtp import replies
from ussycode.doors.smtp.coming import Coming
from ussycode.doors.smtp.limits import MAX_LINE, Held

BYTES = st.lists(st.sampled_from((b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b".\r\n", b"x" * 40)), max_size=40)
END = b"\r\n.\r\n"


async def read(sent: bytes, cuts: list[int]) -> tuple[Coming, bytes, Held]:
    """What is made of `sent`, which comes in pieces, and what of it is left for the next command."""
    held = Held()
    coming, reader = Coming(held), asyncio.StreamReader(limit=MAX_LINE)
    reading = asyncio.create_task(coming.read(reader))
    places = sorted({0, *(cut % len(sent) for cut in cuts), len(sent)})
    for start, end in itertools.pairwise(places):
        reader.feed_data(sent[start:end])
        await asyncio.sleep(0)
    reader.feed_eof()
    await reading
    return coming, await reader.read(), held


@given(parts=BYTES, after=BYTES, cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_a_mail_ends_at_the_first_dot_between_whole_line_ends(
    parts: list[bytes], after: list[bytes], cuts: list[int],
) -> None:
    sent = b"".join(parts) + END + b"".join(after)
    whole, _, rest = (b"\r\n" + sent).partition(END)
    lines = whole.split(b"\r\n")[1:]
    coming, left, held = asyncio.run(read(sent, cuts))
    assert left == rest
    plain = [line.removeprefix(b".") for line in lines]
    if any(b"\r" in line or b"\n" in line for line in plain):
        assert (coming.refusal, coming.content, held.size) == (replies.BARE_LINE_END, b"", 0)
    else:
        assert coming.refusal == "" and coming.content == b"".join(line + b"\n" for line in plain)
        assert held.size == sum(len(line) + 2 for line in lines)
        coming.forget()
        assert held.size == 0
