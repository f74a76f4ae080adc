"""If these failed, a flag would be dropped in silence or a wrong one accepted."""
from __future__ import annotations

import pytest

from ussycode.base.errors import Failure
from ussycode.catalog import COMMANDS, TREE
from ussycode.cmdline.complete import complete
from ussycode.cmdline.help import page
from ussycode.cmdline.lex import split
from ussycode.cmdline.parse import Parsed, parse
from ussycode.cmdline.render import PLAIN


def read(line: str) -> Parsed:
    command, words = TREE.find(split(line))
    return parse(command, words)


def refused(line: str) -> Failure:
    with pytest.raises(Failure) as failure:
        read(line)
    return failure.value


def test_a_flag_is_written_with_a_space_or_an_equals_sign() -> None:
    assert read("new --name demo").args.name == read("new --name=demo").args.name == "demo"


def test_repeatable_flags_collect_in_order() -> None:
    assert read("new --env A=1 --env 'B=x=y z'").args.env == (("A", "1"), ("B", "x=y z"))


def test_switches_can_be_denied() -> None:
    assert read("ls -l").args.long and read("ls --long").args.long
    assert not read("ls --long=false").args.long


def test_json_and_help_are_everywhere() -> None:
    for command in COMMANDS:
        if not any(p.kind == "rest" for p in command.params):
            assert parse(command, ["--help", "--json"]).help


def test_everything_after_the_vm_belongs_to_the_command_in_it() -> None:
    args = read("ssh demo ls -l --json -- x").args
    assert args.vm == "demo" and args.command == ("ls", "-l", "--json", "--", "x")


def test_a_double_dash_ends_flags() -> None:
    assert refused("whoami -- --json").code == "usage.too_many_words"


@pytest.mark.parametrize(("line", "code", "says"), [
    ("new --nmae demo", "usage.unknown_flag", "did you mean --name?"),
    ("new --name", "usage.missing_value", "--name needs a value"),
    ("new --name Demo!", "usage.bad_value", "Demo!"),
    ("new --name web-1", "usage.bad_value", "only digits"),
    ("new --name admin", "usage.bad_value", "reserved"),
    ("new --env nothing", "usage.bad_value", "KEY=VALUE"),
    ("new demo", "usage.too_many_words", "'demo'"),
    ("rm", "usage.missing_word", "rm needs a vm"),
    ("rename demo", "usage.missing_word", "new name"),
    ("ls --long=maybe", "usage.bad_value", "true or false"),
    ("share port demo 99999", "usage.bad_value", "65535"),
])
def test_wrong_usage_is_one_sentence_with_exit_status_2(line: str, code: str, says: str) -> None:
    failure = refused(line)
    assert (failure.code, failure.kind.exit_code) == (code, 2)
    assert says in f"{failure.sentence} {failure.hint}"


@pytest.mark.parametrize(("line", "hint"), [
    ("nwe", "did you mean new?"), ("shar show", "did you mean share show?"), ("share shwo x", "share show"),
])
def test_an_unknown_command_names_the_nearest_one(line: str, hint: str) -> None:
    with pytest.raises(Failure) as failure:
        TREE.find(split(line))
    assert failure.value.kind.exit_code == 127
    assert hint in failure.value.hint


def test_help_fits_80_columns_and_covers_every_command() -> None:
    whole = page(TREE, ("all",)).text(PLAIN)
    for command in COMMANDS:
        text = page(TREE, command.path).text(PLAIN)
        assert command.name in whole
        assert max(map(len, text.splitlines())) <= 100 and "\x1b" not in text
        assert command.summary and command.summary.endswith(".")


def test_help_at_a_glance_fits_a_screen_and_names_every_first_word_that_is_offered() -> None:
    shown = page(TREE, ()).text(PLAIN)
    assert max(map(len, shown.splitlines())) <= 80 and len(shown.splitlines()) < 75
    offered = {c.path[0] for c in COMMANDS if not c.summary.startswith("Not offered")}
    assert offered == {line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line[2] != " "}
    assert page(TREE, ()).document() == page(TREE, ("all",)).document()


@pytest.mark.parametrize(("before", "offered"), [
    ("sha", ("share",)),
    ("share s", ("set-private", "set-public", "show")),
    ("ssh d", ("demo", "docs-a")),
    ("rm demo o", ("other",)),
    ("new --im", ("--image",)),
    ("new --image u", ("ussyuntu",)),
    ("help sha", ("share",)),
    ("nothing x", ()),
])
def test_tab_offers_commands_flags_and_names(before: str, offered: tuple[str, ...]) -> None:
    known = {"vm": ["demo", "docs-a", "other"], "image": ["ussyuntu", "debian-min"]}
    assert complete(TREE, before, lambda kind: known.get(kind, [])) == offered
