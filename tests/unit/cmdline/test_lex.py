"""If these failed, what a person quotes would reach a VM as something else."""
from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ussycode.base.errors import Failure
from ussycode.cmdline.lex import quote, split


@pytest.mark.parametrize(("line", "words"), [
    ("new --name demo", ("new", "--name", "demo")),
    ("a  b\tc\nd", ("a", "b", "c", "d")),
    ("--env 'A=1 2'", ("--env", "A=1 2")),
    (r'''"say \"hi\" \$HOME \n"''', (r'say "hi" $HOME \n',)),
    (r"a\ b", ("a b",)),
    ("''", ("",)),
    ("x'y z'w", ("xy zw",)),
    ("'$HOME `id` *'", ("$HOME `id` *",)),
    ("$HOME ~ *", ("$HOME", "~", "*")),
    ("é 'ü ñ'", ("é", "ü ñ")),
    ("", ()),
])
def test_words_are_those_of_a_shell_without_expansion(line: str, words: tuple[str, ...]) -> None:
    assert split(line) == words


@pytest.mark.parametrize("line", ["'open", '"open', "trailing\\", "a 'b\" c"])
def test_an_open_quote_is_one_clear_failure(line: str) -> None:
    with pytest.raises(Failure) as refused:
        split(line)
    assert refused.value.code == "line.unbalanced"
    assert refused.value.kind.status == 400


@given(st.lists(st.text(max_size=20), max_size=6))
def test_quoting_and_splitting_are_inverse(words: list[str]) -> None:
    assert split(" ".join(map(quote, words))) == tuple(words)


@given(st.lists(st.text(alphabet="ab '\"\\$é", max_size=12), max_size=4))
def test_what_a_posix_shell_would_quote_is_read_the_same(words: list[str]) -> None:
    assert split(shlex.join(words)) == tuple(words)


@given(st.text(max_size=60))
def test_any_line_gives_words_or_a_declared_failure(line: str) -> None:
    try:
        split(line)
    except Failure as failure:
        assert failure.code == "line.unbalanced"
