"""If these failed, a narrow terminal would cut words in two, or a script would be given tables made for people."""
from __future__ import annotations

import pytest

from ussycode.base.errors import Failure
from ussycode.catalog import TREE
from ussycode.cmdline.complete import complete
from ussycode.cmdline.help import page
from ussycode.cmdline.render import Style, failure_text, reflow, table
from ussycode.cmdline.tree import INCOMPLETE
from ussycode.vms.ops import NO_SUCH_VM

HEAD = ["NAME", "FINGERPRINT", "LAST USED"]
ROWS = [["laptop", "SHA256:" + "x" * 43, "2026-11-30"], ["a", "SHA256:short", "never"]]
NARROW = Style(60, folds=True)


def test_columns_that_do_not_fit_stand_below_the_others() -> None:
    lines = table(HEAD, ROWS, NARROW).split("\n")
    assert [line.split() for line in lines] == [
        ["NAME", "FINGERPRINT"], ["LAST", "USED"], ROWS[0][:2], [ROWS[0][2]], ROWS[1][:2], [ROWS[1][2]],
    ]
    assert max(map(len, lines)) <= 60 and lines[3] == "  2026-11-30"
    assert "\n  " not in table(HEAD, ROWS, Style(100, folds=True))


def test_a_pipe_gets_a_line_for_each_row() -> None:
    assert len(table(HEAD, ROWS, Style(60)).split("\n")) == 3


def test_what_is_wider_than_any_line_stands_alone_and_whole() -> None:
    lines = table(["A", "URL", "B"], [["1", "u" * 90, "2"]], NARROW).split("\n")
    assert [line.strip() for line in lines] == ["A", "URL", "B", "1", "u" * 90, "2"]


def test_sentences_are_folded_between_words() -> None:
    failure = NO_SUCH_VM(name="x" * 50)
    assert failure_text(failure, NARROW).split("\n") == ["error: no VM named", "x" * 50, "hint: ls shows your VMs"]
    assert failure_text(failure, Style(60)).split("\n")[0] == f"error: no VM named {'x' * 50}"


def test_a_page_is_filled_to_the_width_but_for_code_and_tables() -> None:
    page = "# Title\n\none two three four five\nsix seven\n\n- an item that is long\n  and goes on\n- short\n\n" \
           "```console\n$ a line of code that is longer than that\nout\n```\n| a | table | of | columns |\n"
    assert reflow(page, 20).split("\n") == [
        "# Title", "", "one two three four", "five six seven", "", "- an item that is", "  long and goes on", "- short",
        "",
        "```console", "$ a line of code that is longer than that", "out", "```", "| a | table | of | columns |", "",
    ]


def test_the_beginning_of_a_command_is_taken_for_it_in_advice() -> None:
    for typed, meant in (("snapshot sch demo", "snapshot schedule"), ("who", "whoami"), ("lst", "ls")):
        with pytest.raises(Failure, match="unknown command") as failed:
            TREE.find(tuple(typed.split()))
        assert f"did you mean {meant}?" in failed.value.hint


def test_the_name_of_a_group_asks_for_one_more_word() -> None:
    with pytest.raises(Failure) as failed:
        TREE.find(("snapshot",))
    assert failed.value.error is INCOMPLETE
    assert failed.value.sentence == "snapshot needs one more word: create, ls, rm, restore, schedule"
    for words in (("snapshot", "--help"), ("snapshot", "-h"), ("snapshot", "help", "--json")):
        command, rest = TREE.find(words)
        assert command.name == "help" and rest[0] == "snapshot"


def test_a_heading_of_the_help_is_a_topic() -> None:
    shown = page(TREE, ["images"])
    assert [c.name for c in shown.commands] == ["image ls", "image pull", "image rm"]
    assert page(TREE, ["This", "lobby"]).sections[0][0] == "This lobby"


def test_tab_offers_nothing_that_is_not_offered() -> None:
    for line in ("", "help "):
        assert not {"billing", "pool", "team"} & set(complete(TREE, line, lambda kind: ()))
