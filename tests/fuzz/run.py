"""Coverage-guided fuzzing of the oracles, one after another: `make fuzz SECONDS=3600`, or `run.py SECONDS [ORACLE…]`.

What it learns is kept in a cache folder, so that each run goes on where the last one ended. An input that breaks an
oracle is left in `tests/fuzz/found`, where the suite tries it from then on; `run.py 0 ORACLE FILE` tries one alone.
"""
from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
SHARES = {"exchange": 50, "head": 16, "answer": 8, "chunks": 6, "token": 8, "cookie": 4, "host": 4, "redirect": 4}
"""Hundredths of the time."""
HANG = 10
"""Seconds for one input; more is a hang."""
MEMORY_MB = 1024


def main() -> int:
    """Each oracle in a process of its own, since the fuzzer ends its process."""
    seconds, names = int(sys.argv[1]), sys.argv[2:] or list(SHARES)
    whole = sum(SHARES[name] for name in names)
    worst = 0
    for name in names:
        share = max(1, seconds * SHARES[name] // whole)
        print(f"== {name}: {share} s", flush=True)
        done = subprocess.run([sys.executable, __file__, "--one", name, str(share)], check=False, timeout=share + 120)
        worst = worst or done.returncode
    return worst


def one(name: str, seconds: int) -> None:
    """Fuzz one oracle for `seconds`; the process ends with it, not with 0 when something was found."""
    import atheris

    import ussycode.doors.web.asked  # first, so that the many things it imports stay as they are  # noqa: F401

    with atheris.instrument_imports(include=["ussycode.doors.edge", "ussycode.tokens"]):
        from tests.fuzz.oracles import ORACLES
        from tests.fuzz.seeds import FOUND, seeds
    folder = Path(os.environ.get("XDG_CACHE_HOME", "/var/tmp")) / "ussycode-fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds(name):
        (folder / hashlib.sha256(seed).hexdigest()[:32]).write_bytes(seed)
    FOUND.mkdir(exist_ok=True)
    options = [
        f"-max_total_time={seconds}", f"-timeout={HANG}", f"-rss_limit_mb={MEMORY_MB}", "-max_len=4096",
        f"-artifact_prefix={FOUND}/{name}-", "-print_final_stats=1", "-verbosity=0",
        f"-dict={Path(__file__).with_name('words.dict')}", str(folder),
    ]
    atheris.Setup([sys.argv[0], *options], ORACLES[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        one(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "0":
        from tests.fuzz.oracles import ORACLES

        ORACLES[sys.argv[2]](Path(sys.argv[3]).read_bytes())
    else:
        sys.exit(main())
