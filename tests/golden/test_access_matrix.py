"""The whole truth table of the one decision. A change of policy shows up here as changed rows."""
from __future__ import annotations

from collections.abc import Callable, Iterator

from ussycode.access.actions import Action
from ussycode.access.decide import decide
from ussycode.access.facts import NOBODY, Caller, Facts, Grant, Level, Role, Via, VmFacts

PEOPLE = {
    "nobody": NOBODY,
    "owner": Caller("user_owner", "olive", Role.NEWBIE, Via.SSH_KEY),
    "owner's session": Caller("user_owner", "olive", Role.NEWBIE, Via.SESSION),
    "owner's token for ls": Caller("user_owner", "olive", Role.NEWBIE, Via.TOKEN, commands=frozenset({"ls"})),
    "owner's empty token": Caller("user_owner", "olive", Role.NEWBIE, Via.TOKEN, commands=frozenset()),
    "owner's ssh demo token": Caller("user_owner", "olive", Role.NEWBIE, Via.TOKEN, commands=frozenset({"ssh demo"})),
    "owner's key for blue": Caller("user_owner", "olive", Role.NEWBIE, Via.SSH_KEY, tag="blue"),
    "shell guest's key blue": Caller("user_shell", "sue", Role.NEWBIE, Via.SSH_KEY, tag="blue"),
    "stranger": Caller("user_stranger", "sam", Role.NEWBIE, Via.SSH_KEY),
    "admin": Caller("user_admin", "ada", Role.ADMIN, Via.SSH_KEY),
    "invited": Caller("user_invited", "ivy", Role.NEWBIE, Via.SESSION),
    "invited to 8001": Caller("user_port", "pat", Role.NEWBIE, Via.SESSION),
    "invited till now": Caller("user_late", "lou", Role.NEWBIE, Via.SESSION),
    "link holder": Caller("user_link", "lin", Role.NEWBIE, Via.SESSION),
    "shell guest": Caller("user_shell", "sue", Role.NEWBIE, Via.SSH_KEY),
    "shell guest's ls token": Caller("user_shell", "sue", Role.NEWBIE, Via.TOKEN, commands=frozenset({"ls"})),
}
NOW = 1_800_000_000.0
GRANTS = {
    "user_invited": (Grant(),), "user_port": (Grant(port=8001),), "user_late": (Grant(Level.SHELL, expires=NOW),),
    "user_link": (Grant(link=True),), "user_shell": (Grant(Level.SHELL, expires=NOW + 1),),
}
VMS = {
    "no VM": None,
    "private": VmFacts("vm_1", "demo", "user_owner", frozenset(), 8000),
    "public 8000": VmFacts("vm_1", "demo", "user_owner", frozenset({8000}), 8000),
    "shared": VmFacts("vm_1", "demo", "user_owner", frozenset(), 8000, GRANTS),
    "shared, blue": VmFacts("vm_1", "demo", "user_owner", frozenset(), 8000, GRANTS, frozenset({"blue"})),
}
TAKES_MAIL = {"takes mail": VmFacts("vm_1", "demo", "user_owner", takes_mail=True)}
COMMANDS = {Action.VM_LIST: "ls", Action.VM_SHELL: "ssh demo", Action.VM_DELETE: "rm"}


def rows() -> Iterator[str]:
    for action in Action:
        ports: tuple[int | None, ...] = (8000, 8001) if action is Action.VM_OPEN else (None,)
        for who, caller in PEOPLE.items():
            for what, vm in (VMS | (TAKES_MAIL if action is Action.VM_MAIL else {})).items():
                for port in ports:
                    command = COMMANDS.get(action, "other") if caller.via is Via.TOKEN else ""
                    made = decide(action, Facts(caller, vm, port, command, NOW))
                    where = f"{what}:{port}" if port else what
                    yield f"{action:15} {who:23} {where:17} {made.reply:7} {made.reason}"


def test_the_access_matrix_is_the_reviewed_one(golden: Callable[[str, str], None]) -> None:
    golden("access.txt", "\n".join(rows()) + "\n")


def test_nobody_can_tell_a_missing_vm_from_a_private_one() -> None:
    for action in Action:
        for who in ("nobody", "stranger", "admin"):
            missing = decide(action, Facts(PEOPLE[who], None, 8000))
            private = decide(action, Facts(PEOPLE[who], VMS["private"], 8000))
            assert missing.reply is private.reply, (action, who)
