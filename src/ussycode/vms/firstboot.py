"""What a new VM is given once, when it first answers: files, a setup script, a prompt for the agent in its image."""
from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa

from ussycode.base.db import Tx, metadata
from ussycode.base.errors import ErrorCode, Failure, Kind, printable
from ussycode.base.events import SYSTEM, Event
from ussycode.ports import App
from ussycode.runtime.guest.execs import ExecSpec, ExecStream, Exit, Stderr
from ussycode.vms import store
from ussycode.vms.model import Vm

MAX_SCRIPT = 10 << 10
"""Bytes of a setup script."""
MAX_PROMPT = 64 << 10
"""Bytes of a prompt."""
DELIVERY_SECONDS = 90.0
"""How long a guest may take to accept what it is given; it runs the script afterwards, in its own time."""
MAX_SAID = 2000
"""Bytes of a guest's complaint that are kept."""
NOT_TAKEN = ErrorCode("vm.first_boot", Kind.UNAVAILABLE, "{what} could not be given to {name}: {why}")
first_boots = sa.Table(
    "first_boots", metadata,
    sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("gifts", sa.String, nullable=False),
)

_PUT = """set -e; umask 022; case "$1" in "~/"*) p="$HOME/${1#??}";; *) p="$1";; esac
mkdir -p "$(dirname -- "$p")"; cat > "$p" """
# What runs is ended by systemd like any service; where there is none the agent's own stream starts it. `$4` is the
# root of the file system, which only tests change.
_INSTALL = """set -e; umask 022; name=$1 user=$2 run=$3 root=$4
mkdir -p "$root/exe.dev"; cat > "$root/exe.dev/.$name"; chmod 755 "$root/exe.dev/.$name"
mv "$root/exe.dev/.$name" "$root/exe.dev/$name"
if [ "$name" = prompt ] && [ ! -x "$root$run" ] && [ ! -e "$root/exe.dev/setup" ]; then
  rm "$root/exe.dev/$name"; echo "the image has no agent at $run" >&2; exit 3
fi
if [ ! -d "$root/run/systemd/system" ]; then
  if [ "$name" = setup ]; then
    : > "$root/exe.dev/setup.runs"; chown "$user" "$root/exe.dev/setup.runs"
    mkdir -p "$root/etc/systemd/system"; ln -sf /exe.dev/setup.runs "$root/etc/systemd/system/exe-setup.service"
  fi
  chown "$user" "$root/exe.dev" "$root/exe.dev/$name"; exit 7
fi
if [ "$name" = prompt ]; then input=file:/exe.dev/prompt; else input=null; fi
cat > "$root/etc/systemd/system/exe-$name.service" <<END
[Unit]
Description=First-boot $name
After=network.target exe-setup.service
ConditionPathExists=/exe.dev/$name
[Service]
Type=oneshot
User=$user
WorkingDirectory=~
StandardInput=$input
ExecStart=/bin/sh -lc 'exec $run'
ExecStopPost=+/bin/rm -f /exe.dev/$name
END
i=0
until systemctl daemon-reload 2>/dev/null && systemctl start --no-block "exe-$name.service"; do
  i=$((i + 1)); [ "$i" -lt 120 ] || exit 4; sleep 0.5
done
"""
NO_SYSTEMD = 7
"""Status of the installer where nothing but the agent can start what was installed."""
# Clients that wait for the script look for its unit. Here it leads to a file that is there while the script runs; a
# script that failed stays, which they tell from one that did its work.
_RUNS_LATER = {
    "setup": "cd; (sh -lc 'exec /exe.dev/setup' < /dev/null && rm -f /exe.dev/setup; rm -f /exe.dev/setup.runs)"
             " > /exe.dev/setup.log 2>&1 &",
    "prompt": "cd; (while [ -e /exe.dev/setup.runs ]; do sleep 1; done; sh -lc 'exec /etc/ussycode/agent'"
              " < /exe.dev/prompt; rm -f /exe.dev/prompt) > /exe.dev/prompt.log 2>&1 &",
}
RUNS = {"setup": "/exe.dev/setup", "prompt": "/etc/ussycode/agent"}
"""What is run for each gift. The agent is the image's own program; it finds the prompt on its standard input."""


@dataclass(frozen=True)
class Gifts:
    """What a VM gets once. `files` are (path, text), a path below the login user's home beginning with `~/`."""

    setup: str = ""
    prompt: str = ""
    files: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        """There is something to give."""
        return bool(self.setup or self.prompt or self.files)


def keep(tx: Tx, vm: str, gifts: Gifts) -> None:
    """Remember what a VM is to get; nothing is remembered for no gifts."""
    if gifts:
        tx.conn.execute(first_boots.insert(), {"vm": vm, "gifts": msgspec.json.encode(gifts).decode()})


async def deliver(app: App, vm: Vm) -> str:
    """Give a running VM what it has not got yet; why not, in a sentence, or nothing. Never given twice."""
    gifts = await app.db.write(lambda tx: _take(tx, vm.id))
    if gifts is None:
        return ""
    try:
        async with asyncio.timeout(DELIVERY_SECONDS):
            await _give(app, vm, gifts)
    except Failure as failure:
        return await _tell(app, vm, failure.sentence)
    except TimeoutError:
        return await _tell(app, vm, f"{vm.name} did not take its first-boot script in {DELIVERY_SECONDS:.0f} s")
    return ""


async def deliver_all(app: App) -> int:
    """Give every running VM what it has not got yet: those whose `new` was cut short. How many were served."""
    def waiting(tx: Tx) -> list[Vm]:
        found = [store.by_id(tx, row.vm) for row in tx.conn.execute(sa.select(first_boots.c.vm))]
        return [vm for vm in found if vm is not None and vm.running and tx.now - vm.created_at > DELIVERY_SECONDS]

    late = await app.db.read(waiting)
    for vm in late:
        await deliver(app, vm)
    return len(late)


def _take(tx: Tx, vm: str) -> Gifts | None:
    row = tx.conn.execute(sa.select(first_boots.c.gifts).where(first_boots.c.vm == vm)).first()
    tx.conn.execute(first_boots.delete().where(first_boots.c.vm == vm))
    return None if row is None else msgspec.json.decode(row.gifts, type=Gifts)


async def _tell(app: App, vm: Vm, why: str) -> str:
    await app.db.write(lambda tx: tx.emit(Event("vm.first_boot", SYSTEM, vm.id, {"why": why})))
    return why


async def _give(app: App, vm: Vm, gifts: Gifts) -> None:
    user = app.images.login_user(vm.image)
    for path, text in gifts.files:
        await _require(app, vm, path, _shell(_PUT, path), user, text)
    for name, text in (("setup", gifts.setup), ("prompt", gifts.prompt)):
        if text:
            await _install(app, vm, name, user, text)


async def _install(app: App, vm: Vm, name: str, user: str, text: str) -> None:
    done = await _run(app, vm, _shell(_INSTALL, name, user, RUNS[name], ""), "root", text)
    if done.status == NO_SYSTEMD:
        await _require(app, vm, name, _RUNS_LATER[name], user, "")
    elif done.status:
        raise NOT_TAKEN(what=f"the {name}", name=vm.name, why=done.said)


def installer(name: str, user: str, root: str) -> str:
    """The command that puts a gift into the file system at `root`; the gift is its standard input."""
    return _shell(_INSTALL, name, user, RUNS[name], root)


def _shell(program: str, *words: str) -> str:
    return shlex.join(("/bin/sh", "-c", program, "sh", *words))


@dataclass(frozen=True)
class _Done:
    status: int
    said: str


async def _require(app: App, vm: Vm, what: str, command: str, user: str, text: str) -> None:
    done = await _run(app, vm, command, user, text)
    if done.status:
        raise NOT_TAKEN(what=what, name=vm.name, why=done.said)


async def _run(app: App, vm: Vm, command: str, user: str, text: str) -> _Done:
    program = await app.link.open_exec(vm.id, ExecSpec(cmd=command, user=user))
    feeding = asyncio.create_task(_feed(program, text))
    said, status = b"", 255
    try:
        async for event in program:
            if isinstance(event, Exit):
                status = event.status
            elif isinstance(event, Stderr):
                said = (said + event.data)[:MAX_SAID]
    finally:
        feeding.cancel()
        await program.close()
    return _Done(status, printable(said.decode(errors="replace").strip() or f"status {status}", 300))


async def _feed(program: ExecStream, text: str) -> None:
    await program.write(text.encode())
    await program.write_eof()
