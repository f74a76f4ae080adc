"""If these failed, help would promise a flag that is refused, or a slip of the finger would mean another flag."""
from __future__ import annotations

import pytest

from ussycode.base.errors import Failure
from ussycode.catalog import COMMANDS, TREE
from ussycode.cmdline.complete import complete
from ussycode.cmdline.help import of_command
from ussycode.cmdline.lex import split
from ussycode.cmdline.parse import parse
from ussycode.cmdline.render import PLAIN
from ussycode.cmdline.spec import Command, Param

CANDIDATES = (
    "demo", "1", "2G", "A=1", "on", "vm", "all", "24h", "30d", "user:password", "static", "bash", "daily", "tag",
    "3000", "me@example.org", "alpine:3.20", "known", "123456", "local", "example.org", "dev.exe", "root", "'true'",
    "allow", "qcow2",
)
"""A value of each kind there is; a flag takes at least one of them."""
FLAGS = [(c, p) for c in COMMANDS for p in c.params if p.kind in ("flag", "switch")]


def value(param: Param) -> str:
    """A value that `param` takes."""
    for text in CANDIDATES:
        try:
            param.parse(text)
        except (ValueError, Failure):
            continue
        return text
    raise AssertionError(f"no candidate suits {param.name}; add one")


def words(command: Command) -> list[str]:
    """The positional words a command insists on."""
    return [value(p) for p in command.params if p.kind == "word" and p.required]


def name(case: object) -> str:
    return getattr(case, "name", str(case))


@pytest.mark.parametrize(("command", "param"), FLAGS, ids=name)
def test_every_documented_flag_is_accepted_in_each_of_its_spellings(command: Command, param: Param) -> None:
    text = "true" if param.kind == "switch" else value(param)
    spelled = [[f"{param.flag}={text}"]]
    spelled += [[param.flag]] if param.kind == "switch" else [[param.flag, text]]
    if param.short:
        spelled += [["-" + param.short]] if param.kind == "switch" else [["-" + param.short, text]]
    for given in spelled:
        assert parse(command, [*given, *words(command)]).args is not None, given


@pytest.mark.parametrize(("command", "param"), FLAGS, ids=name)
def test_every_flag_is_in_the_help_and_offered_by_tab(command: Command, param: Param) -> None:
    assert param.flag in of_command(command).text(PLAIN)
    assert param.flag in complete(TREE, f"{command.name} {param.flag[:3]}", lambda kind: ())


@pytest.mark.parametrize(("command", "param"), FLAGS, ids=name)
def test_a_slip_of_the_finger_is_refused_with_the_flag_that_was_meant(command: Command, param: Param) -> None:
    if len(param.flag) < 6 or any(p.kind == "rest" and not words(command) for p in command.params):
        return
    slip = param.flag[:-2] + param.flag[-1] + param.flag[-2]
    if slip in {p.flag for p in command.params}:
        slip = param.flag + "x"
    with pytest.raises(Failure) as refused:
        parse(command, [slip, *words(command)])
    assert (refused.value.code, refused.value.kind.exit_code) == ("usage.unknown_flag", 2)
    assert "did you mean --" in refused.value.hint


@pytest.mark.parametrize("command", [c for c in COMMANDS if not any(p.kind == "rest" for p in c.params)], ids=name)
def test_a_flag_that_nobody_has_is_refused_everywhere(command: Command) -> None:
    for flag in ("--colour-of-the-sky", "-Z", "--colour-of-the-sky=blue"):
        with pytest.raises(Failure) as refused:
            parse(command, [flag, *words(command)])
        assert refused.value.code == "usage.unknown_flag" and f"help {command.name}" in refused.value.hint


@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_help_fits_eighty_columns_and_says_what_it_is_for(command: Command) -> None:
    page = of_command(command).text(PLAIN)
    assert max(map(len, page.splitlines())) <= 80 and "\x1b" not in page
    assert command.summary.endswith((".", "!")) and page.startswith(f"{command.name}: ")


@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_examples_are_lines_that_parse(command: Command) -> None:
    for example in command.examples:
        line = example.partition(" < ")[0].partition(" >")[0].replace("…", "x").replace("AAAA...", "AAAA")
        found, rest = TREE.find(split(line))
        assert found is command, example
        parse(found, rest)
