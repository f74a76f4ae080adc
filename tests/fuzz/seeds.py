"""Where fuzzing starts: the corpus of attacks in the shape of each oracle's input, and what was found before."""
from __future__ import annotations

from pathlib import Path

from tests.contract.edge_corpus.attack import HOST
from tests.contract.edge_corpus.requests import ATTACKS
from tests.contract.edge_corpus.responses import TRICKS
from tests.fuzz.oracles import SPLIT
from tests.fuzz.table import SESSION

FOUND = Path(__file__).parent / "found"
"""Inputs that broke an oracle once, as ORACLE-NAME; they must never again."""
LARGEST = 4096
"""Bytes of a seed: longer ones only slow the search."""
SIGNED_IN = b"Cookie: a=1; __Host-ussycode=" + SESSION + b"; b=2\r\n"


def seeds(oracle: str) -> list[bytes]:
    """Inputs for one oracle."""
    made = [seed for seed in _MAKERS[oracle]() if len(seed) <= LARGEST]
    return made + [path.read_bytes() for path in sorted(FOUND.glob(f"{oracle}-*"))]


def _heads() -> list[bytes]:
    return [a.raw.partition(b"\r\n\r\n")[0] for a in ATTACKS]


def _chunks() -> list[bytes]:
    bodies = [a.raw.partition(b"\r\n\r\n")[2] for a in ATTACKS if b"ransfer-Encoding: chunked" in a.raw]
    return [bytes([step]) + body for body in bodies for step in (0, 255)]


def _values(*names: bytes) -> list[bytes]:
    lines = [line for a in ATTACKS for line in a.raw.split(b"\r\n")]
    return [line.partition(b":")[2].strip() for line in lines if line.partition(b":")[0].lower() in names]


def _exchanges() -> list[bytes]:
    found = [bytes([255]) + a.bytes for a in ATTACKS]
    demo = [a.bytes.replace(HOST.encode() + b"\r\n", b"demo.localhost\r\n" + SIGNED_IN) for a in ATTACKS]
    found += [bytes([7]) + d for d in demo]
    ask = b"GET / HTTP/1.1\r\nHost: open.localhost\r\n\r\n"
    return found + [bytes([255]) + ask + SPLIT + t.raw for t in TRICKS]


_MAKERS = {
    "head": _heads, "answer": lambda: [t.raw.partition(b"\r\n\r\n")[0] for t in TRICKS], "chunks": _chunks,
    "cookie": lambda: [*_values(b"cookie"), b"a=1; __Host-ussycode=" + SESSION, b"__Host-ussycode=" + SESSION],
    "host": lambda: [*_values(b"host"), b"3000--demo.localhost:443", b"localhost"],
    "token": lambda: [b"Bearer usy0.e30.AAAA", b"Basic dXNlcjp1c3kxLmFiYw==", b"Bearer usy1.abc", b"usy0.e30.U1NIU0lH",
                      b"Bearer \xff", b"bearer\texe0.x"],
    "redirect": lambda: [a.raw.split(b" ")[1] for a in ATTACKS if a.raw.count(b" ") > 1], "exchange": _exchanges,
}
