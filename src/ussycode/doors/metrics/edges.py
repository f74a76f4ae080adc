"""Figures of the edge processes, asked of each over its unix socket and labelled with its number."""
from __future__ import annotations

import asyncio
from pathlib import Path

MAX_ANSWER = 1 << 20
"""Bytes taken of one edge's answer."""
ANSWER_SECONDS = 1.0
"""Time an edge has to answer; one that does not is left out."""
_ASK = b"GET /__edge/metrics HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"


async def gather(folder: Path) -> bytes:
    """What every edge with a socket in `folder` counts, as Prometheus text with the label `edge`."""
    sockets = sorted(folder.glob("*.sock"))
    answers = await asyncio.gather(*(_ask(path) for path in sockets))
    typed: set[str] = set()
    lines: list[str] = []
    for path, text in zip(sockets, answers, strict=True):
        for line in text.splitlines():
            if not line.startswith("#"):
                lines.append(labelled(line, path.stem))
            elif line not in typed:
                typed.add(line)
                lines.append(line)
    return ("\n".join(lines) + "\n").encode() if lines else b""


def labelled(line: str, edge: str) -> str:
    """A sample with the label `edge` put first."""
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{edge="{edge}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{edge="{edge}"}} {value}'


async def _ask(path: Path) -> str:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(_ASK)
                answer = await reader.read(MAX_ANSWER)
                while len(answer) < MAX_ANSWER and (more := await reader.read(MAX_ANSWER)):
                    answer += more
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return ""  # it is starting, ending, or stuck; the others' figures are still worth having
    return answer.partition(b"\r\n\r\n")[2].decode(errors="replace")
