"""Commands for the caller's own machine: an ssh configuration and shell completion."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict, cast

from ussycode.access.actions import Action
from ussycode.catalog import manual
from ussycode.cmdline.complete import Offer, offers
from ussycode.cmdline.render import Style
from ussycode.cmdline.spec import ACCOUNT, NOTHING, Command, command, switch, word
from ussycode.cmdline.tree import Tree
from ussycode.config import Config
from ussycode.ports import App, Ctx
from ussycode.vms import ops as vms
from ussycode.vms.projects import PROJECTS

SHELLS = ("bash", "zsh", "fish")


def shell(text: str) -> str:
    """The name of a shell that completion is written for."""
    if text not in SHELLS:
        raise ValueError("write " + ", ".join(SHELLS))
    return text


@dataclass(frozen=True)
class Nothing:
    """No arguments."""


class FileDocument(TypedDict):
    """A file, under what it is."""

    ssh_config: NotRequired[str]
    script: NotRequired[str]
    known_hosts: NotRequired[str]


class CandidatesDocument(TypedDict):
    """`complete`."""

    candidates: list[str]


@dataclass(frozen=True)
class FileView:
    """A file for the caller's machine, printed as it is to be kept."""

    kind: Literal["ssh_config", "script", "known_hosts"]
    content: str

    def text(self, style: Style) -> str:
        """The file and nothing else, so that it can be redirected."""
        return self.content.rstrip("\n")

    def document(self) -> FileDocument:
        """The file under its kind."""
        return cast(FileDocument, {self.kind: self.content})


@command("ssh-config", needs=Action.VM_LIST, on=ACCOUNT, reads_only=True,
         examples=("ssh-config > ~/.ssh/ussycode.conf",))
async def ssh_config(ctx: Ctx, a: Nothing) -> FileView:
    """Print an ssh configuration in which each of your VMs is a host.

    Keep it in a file and name that file in ~/.ssh/config: Include ussycode.conf. Then `ssh demo.HOST`, scp,
    rsync and editors that speak SSH reach the VM demo. `ssh direct.demo.HOST` jumps through the platform to the
    VM's own sshd, with end-to-end encryption. Print it again after making a VM.
    """
    config = ctx.app.config
    mine = await vms.mine(ctx.app, ctx.permit)
    hosts = [_host(config, vm.name, ctx.app.images.login_user(vm.image)) for vm in mine]
    return FileView("ssh_config", "\n".join([_lobby(config), *hosts]))


@command("known-hosts", needs=Action.NOTHING, on=NOTHING, reads_only=True,
         examples=("known-hosts >> ~/.ssh/known_hosts",))
async def known_hosts(ctx: Ctx, a: Nothing) -> FileView:
    """Print the line for ~/.ssh/known_hosts: one host key for the lobby and every VM."""
    domain, port = ctx.app.config.domain, ctx.app.config.ssh_port
    names = domain if port == 22 else f"[{domain}]:{port},{domain}"
    return FileView("known_hosts", f"{names} {ctx.app.host_key}")


def _lobby(config: Config) -> str:
    where = f"Host {config.domain}\n  HostName {config.domain}\n  Port {config.ssh_port}\n"
    return f"# VMs at {config.domain}; written by: ssh-config\n{where}"


def _host(config: Config, name: str, login_user: str) -> str:
    domain = config.domain
    return (
        f"Host {name}.{domain}\n  HostName {domain}\n  Port {config.ssh_port}\n  User {name}\n"
        f"  HostKeyAlias {domain}\n\n"
        f"Host direct.{name}.{domain}\n  HostName {name}\n  User {login_user}\n  ProxyJump {domain}\n"
        f"  HostKeyAlias direct.{name}.{domain}\n"
    )


@dataclass(frozen=True)
class Completion:
    """Arguments of `completion`."""

    shell: str = word(shell, help="bash, zsh or fish", complete="shell")


@command("completion", needs=Action.NOTHING, on=NOTHING, reads_only=True,
         examples=("completion bash >> ~/.bashrc", "completion zsh >> ~/.zshrc",
                   "completion fish > ~/.config/fish/conf.d/ussy.fish"))
async def completion(ctx: Ctx, a: Completion) -> FileView:
    """Print a completion script that gives your shell a command `ussy` with Tab.

    `ussy ls` is `ssh HOST ls`; Tab asks the platform itself, so it offers commands, flags and your VMs of the moment.
    """
    return FileView("script", _script(a.shell, ctx.app.config))


def _script(kind: str, config: Config) -> str:
    return _SCRIPTS[kind].replace("REACH", config.ssh_command())


_BASH = r"""ussy() {
  local t=; [ -t 0 ] && [ -t 1 ] && t=-t
  if [ $# -eq 0 ]; then REACH; else REACH $t -o LogLevel=ERROR "${*@Q}"; fi
}
_ussy() {
  local typed="${COMP_LINE:0:COMP_POINT}" cur done; typed="${typed#* }"; cur="${typed##* }"
  local IFS=$'\n'
  COMPREPLY=( $(REACH complete "'${typed//\'/}'" </dev/null 2>/dev/null) )
  # The shell replaces only what stands behind the last = or : of the word.
  done="${cur%"${cur##*[=:]}"}"; COMPREPLY=( "${COMPREPLY[@]#"$done"}" )
}
complete -o default -F _ussy ussy
"""
_ZSH = r"""ussy() {
  local t=(); [ -t 0 ] && [ -t 1 ] && t=(-t)
  if [ $# -eq 0 ]; then REACH; else REACH $t -o LogLevel=ERROR "${(j: :)${(qq)@}}"; fi
}
_ussy() {
  local typed="${(j: :)words[2,CURRENT-1]} $PREFIX" line
  local -a found
  for line in "${(f)$(REACH complete --describe ${(qq)typed# } </dev/null 2>/dev/null)}"; do
    found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done
  [ -n "$found[1]" ] && _describe ussy found
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _ussy ussy
"""
_FISH = r"""function __ussy_quoted
    for word in $argv; printf "'%s' " (string replace -a "'" "'\\''" -- $word | string collect -a); end
end
function ussy
    set -l t; isatty stdin; and isatty stdout; and set t -t
    if test (count $argv) -eq 0; REACH; else; REACH $t -o LogLevel=ERROR (__ussy_quoted $argv); end
end
function __ussy_complete
    set -l typed (string replace -r '^\s*\S+\s?' '' -- (commandline -cp))
    REACH complete --describe (__ussy_quoted $typed) </dev/null 2>/dev/null
end
complete -c ussy -f -a '(__ussy_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@dataclass(frozen=True)
class Complete:
    """Arguments of `complete`."""

    line: str = word(str, help="the command line as far as it is typed, as one word", default="")
    describe: bool = switch(help="say after a tab what each word means")


@dataclass(frozen=True)
class Candidates:
    """What could stand where the last word is being typed."""

    offers: tuple[Offer, ...]
    described: bool

    def text(self, style: Style) -> str:
        """One a line."""
        return "\n".join(f"{word}\t{meaning}" if self.described else word for word, meaning in self.offers)

    def document(self) -> CandidatesDocument:
        """The document of `complete`."""
        return {"candidates": [word for word, _ in self.offers]}


def complete_of(tree: Callable[[], Tree]) -> Command:
    """The `complete` command of the tree it is itself part of."""

    @command("complete", needs=Action.VM_LIST, on=ACCOUNT, reads_only=True, examples=("complete 'share sh'",))
    async def complete_line(ctx: Ctx, a: Complete) -> Candidates:
        """Print what Tab would offer at the end of a line; for completion scripts."""
        mine = await vms.mine(ctx.app, ctx.permit)
        tags = tuple(sorted({tag for vm in mine for tag in vm.tags}))
        known = Values(ctx.app, tuple(vm.name for vm in mine), tags)
        return Candidates(offers(tree(), a.line, known), a.describe)

    return complete_line


@dataclass(frozen=True)
class Values:
    """Values that Tab offers, by kind. `vms` are the caller's, and `tags` those on them."""

    app: App
    vms: tuple[str, ...]
    tags: tuple[str, ...] = ()

    def __call__(self, kind: str) -> tuple[str, ...]:
        """The values of one kind; none for a kind that has no list."""
        if kind == "image":
            return tuple(self.app.images.names())
        known = {"vm": self.vms, "tag": self.tags, "shell": SHELLS, "page": tuple(p.slug for p in manual.pages()),
                 "project": tuple(PROJECTS)}
        return known.get(kind, ())


ALL = (ssh_config, known_hosts, completion)
