"""Which methods of the published Python client work here, and why the others do not: the page, and its facts."""
from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ussycode.catalog import TREE, declined
from ussycode.cmdline.lex import split

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conformance.surface import commands

NOT_BUILT = "an unknown command"
NO_ADDRESS = {
    "Client.invite.__call__": "an invitation names an address here: `invite friend@example.org`",
    **{f"Client.invite.{name}": "nobody earns rewards here; `invite` takes an e-mail address" for name in (
        "activity", "link", "manage", "request", "rewards", "set_reward", "show",
    )},
}
"""Commands of the same name that mean something else here."""
DIFFERS = {
    "Client.delete": "into the trash, for 7 days",
    "Client.new": '`wait_until="created"` too returns once the VM runs; regions, pools and integrations are refused',
    "Client.set_region": "one region, `local`",
    "Client.ssh_key.add": "`vm` and `ssh_user` are refused; `tag` keeps a key to some VMs",
    "VM.copy": "answers once the copy runs",
    "VM.delete": "into the trash, for 7 days",
    "VM.share.add": "`team` is refused: there are no teams so far",
    "VM.share.remove": "`team` is refused: there are no teams so far",
    "VM.share.show": "the `token` of a link is its id: what opens it is shown once, by `add_link`",
    "VM.url": "with a port it is not an address of ours: port 3000 of `demo` is `https://3000--demo.HOST/`",
    "VM.wait_until_ready": "`setup` in an image without systemd tells a failure without its status",
}
"""Methods that work, and what is not quite as exe.dev has it."""


@dataclass(frozen=True)
class Row:
    """One public method: the command behind it, and why it does not work; no reason when it does."""

    method: str
    command: str
    why: str


def rows() -> list[Row]:
    """Every public method of the client, in its order."""
    return [_row(method, line) for method, line in commands().items()]


def _row(method: str, line: str) -> Row:
    words = split(line) if line else ()
    if not words:
        return Row(method, "", "")
    named = TREE.named(" ".join(words[:2])) or TREE.named(words[0])
    if named is None:
        return Row(method, line, NOT_BUILT)
    refused = next((d for d in declined.DECLINED if d.name == named.name), None)
    return Row(method, named.name, refused.why if refused is not None else NO_ADDRESS.get(method, ""))


def page(note: str) -> str:
    """The page that people read."""
    found = [r for r in rows() if not r.method.endswith(".__exit__")]
    works = [f"| `{_shown(r.method)}` | {f'`{r.command}`' if r.command else '-'} | {DIFFERS.get(r.method, '')} |"
             for r in found if not r.why]
    not_here = [f"| `{_shown(r.method)}` | `{r.command}` | {r.why} |" for r in found if r.why]
    return "\n".join([
        "# The Python client", "", note,
        "The published package `exedev` works unmodified:\n",
        "```python", "import exedev", "", 'exe = exedev.Client(token, base_url="https://your.host")',
        "with exe.new() as vm:", '    print(vm.run("uname -a", check=True).stdout)', "```", "",
        "So does `exedev.AsyncClient`. `tests/conformance` runs each method of the first table in both against real "
        "VMs or the real control plane. A method of the second table raises `exedev.APIError` with the reason.\n",
        f"## What works ({len(works)})", "", "| method | command | differs |", "|---|---|---|", *works, "",
        f"## What does not ({len(not_here)})", "", "| method | command | why |", "|---|---|---|", *not_here, "",
    ])


def _shown(method: str) -> str:
    if method.endswith(".__enter__"):
        return f"with {method.partition('.')[0]}"
    return method.replace(".__call__", "()")
