"""The one explicit command tree."""
from __future__ import annotations

from ussycode.catalog import clients, credentials, declined, manual
from ussycode.catalog.builtin import exit_command, help_of
from ussycode.cmdline.tree import Tree
from ussycode.domains import commands as domains
from ussycode.identity import commands as identity
from ussycode.sharing import asking_commands, insight_commands, mailbox_commands, people_commands
from ussycode.sharing import commands as sharing
from ussycode.vms import (
    account_commands,
    advice_commands,
    image_commands,
    import_commands,
    keep_commands,
    lifecycle_commands,
    new_commands,
)
from ussycode.vms import commands as vms

TREE: Tree = Tree.of(
    ("VMs", (*new_commands.ALL, *vms.ALL, *lifecycle_commands.ALL)),
    ("Kept", (*keep_commands.ALL, *import_commands.ALL)),
    ("Images", image_commands.ALL),
    ("Sharing", (
        *sharing.ALL, *people_commands.ALL, *asking_commands.ALL, *insight_commands.ALL,
        *mailbox_commands.ALL, *domains.ALL,
    )),
    ("You", (*identity.ALL, *credentials.ALL, *account_commands.ALL, *advice_commands.ALL)),
    ("This lobby", (help_of(lambda: TREE), manual.doc, exit_command)),
    ("Your own machine", (*clients.ALL, clients.complete_of(lambda: TREE))),
    ("Elsewhere", declined.ALL),
)
COMMANDS = TREE.commands
