"""A minute of fuzzing in every run of the suite; hours of it with `make fuzz`. The same oracles, the same seeds."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.oracles import ORACLES, SPLIT
from tests.fuzz.seeds import seeds

EXAMPLES = {
    "head": 4000, "answer": 4000, "chunks": 3000, "cookie": 1500, "host": 1500, "token": 2000, "redirect": 1500,
    "exchange": 4000,
}
WORDS = [
    word.encode("latin-1").decode("unicode_escape").encode("latin-1")
    for word in re.findall(r'^"(.*)"$', Path(__file__).with_name("words.dict").read_text(), re.MULTILINE)
]
PLACE = st.floats(0, 1, exclude_max=True)
EDITS = st.lists(st.tuples(
    PLACE, st.integers(0, 20), st.one_of(st.sampled_from(WORDS), st.binary(max_size=4), st.just(SPLIT)), st.booleans(),
), max_size=5)
"""Where, how many bytes go, what comes, and whether what goes is said twice instead."""


def edited(seed: bytes, edits: list[tuple[float, int, bytes, bool]]) -> bytes:
    """The seed after some edits."""
    for place, size, word, twice in edits:
        at = int(place * (len(seed) + 1))
        seed = seed[:at] + word + seed[at:] + seed[at : at + size] if twice else seed[:at] + word + seed[at + size :]
    return seed


@pytest.mark.parametrize("name", ORACLES)
def test_what_is_known_to_be_nasty(name: str) -> None:
    for seed in seeds(name):
        ORACLES[name](seed)


@pytest.mark.parametrize("name", ORACLES)
def test_variations_of_it(name: str) -> None:
    known = seeds(name)

    @settings(max_examples=EXAMPLES[name], deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(known), EDITS)
    def holds(seed: bytes, edits: list[tuple[float, int, bytes, bool]]) -> None:
        ORACLES[name](edited(seed, edits))

    holds()
