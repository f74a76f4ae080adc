"""QR codes for a terminal."""
from __future__ import annotations

import segno


def drawn(text: str) -> str:
    """`text` as a QR code of characters, two modules in each."""
    rows = [[bool(x) for x in row] for row in segno.make(text, error="m").matrix_iter(border=2)]
    rows += [[False] * len(rows[0])] if len(rows) % 2 else []
    pairs = zip(rows[::2], rows[1::2], strict=True)
    # Half blocks; light modules are drawn, so the code reads on the usual dark terminal.
    blocks = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
    return "\n".join("".join(blocks[cell] for cell in zip(up, down, strict=True)) for up, down in pairs)
