"""What `--qr` draws is read back, by a decoder that is not ours, as exactly the address that is printed."""
from __future__ import annotations

import re

import pytest
import zxingcpp

from tests.world import world
from ussycode.cmdline.qr import drawn
from ussycode.cmdline.render import PLAIN

DRAWING = re.compile(r"[█▀▄ ]+")
URL = re.compile(r"https://\S+")
PIXELS = 4
"""Pixels of one module."""


def read(lines: list[str]) -> str:
    """What a camera makes of a drawing on a dark terminal: two modules a character, drawn ones are light."""
    halves = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}
    rows = [[halves[cell][half] for cell in line] for line in lines for half in (0, 1)]
    picture = bytes(value for row in rows for _ in range(PIXELS) for value in row for _ in range(PIXELS))
    image = memoryview(picture).cast("B", shape=[len(rows) * PIXELS, len(rows[0]) * PIXELS])
    (found,) = zxingcpp.read_barcodes(image)
    return str(found.text)


@pytest.mark.parametrize("line", [
    "share show demo --qr", "share add demo friend@example.org --qr", "share add demo b@example.org --port 3000 --qr",
    "share add-link demo --qr", "browser --qr",
])
async def test_a_phone_reads_the_address(line: str) -> None:
    async with world() as w:
        olive = await w.person("olive")
        await w.does(olive, "new --name demo")
        outcome = await w.run(olive, line, json=False)
        assert outcome.view is not None, outcome.failure
        shown = outcome.view.text(PLAIN).split("\n")
        drawing = [one for one in shown if DRAWING.fullmatch(one)]
        printed = [found for one in shown if one not in drawing for found in URL.findall(one)]
        assert len(drawing) > 12 and read(drawing) == printed[0]


@pytest.mark.parametrize("text", ["a", "https://x.example/" + "y" * 200, "mailto:ü@example.org"])
def test_any_text_is_read_back(text: str) -> None:
    assert read(drawn(text).split("\n")) == text
