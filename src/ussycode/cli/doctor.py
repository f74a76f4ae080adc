"""`ussycode doctor`: every prerequisite, checked for real, with what to do about it."""
from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ussycode.base.errors import Failure
from ussycode.cli import prepare, state
from ussycode.config import Config
from ussycode.runtime import host_tool
from ussycode.runtime.instance import Instance
from ussycode.runtime.kernel import BootFiles

MEMORY_MIB = 2048
"""Memory below which the platform and a first VM do not fit."""
DISK_GIB = 8
"""Free disk below which building the default image and a first VM do not fit."""


CONTAINER_KERNEL = (5, 19)
"""First kernel that joins layers whose uids are shifted."""


@dataclass(frozen=True)
class Check:
    """One finding. `todo` is empty when all is well."""

    name: str
    ok: bool
    found: str
    todo: str = ""


def doctor(config: Config, asked: argparse.Namespace) -> int:
    """Print every check; exit status 0 only when nothing stands in the way."""
    checks = list(examine(config))
    if asked.json:
        print(json.dumps([asdict(c) for c in checks]))
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'FAIL'} {check.name:8} {check.found}")
            if check.todo:
                print(f"              -> {check.todo}")
    return 0 if all(c.ok for c in checks) else 1


def examine(config: Config) -> Iterator[Check]:
    """All checks, cheap ones first."""
    for look in (_root, _tools, _memory, _disk, _ports, _tun, _key, _kernel, _image, _kvm, _templates, _walls,
                 _containers, _network, _dns, _front, _limits, _leftovers):
        try:
            yield look(config)
        except Failure as failure:
            yield Check(look.__name__.strip("_"), False, failure.sentence, failure.hint)
        except OSError as error:
            why = f"it could not be looked at: {error.strerror} ({error.filename})"
            yield Check(look.__name__.strip("_"), False, why, "run: sudo ussycode doctor")


def _root(_config: Config) -> Check:
    if os.geteuid() == 0:
        return Check("root", True, "running as root")
    return Check("root", False, "not running as root, without which there are no walls around VMs: no interface, no "
                 "rules and no user of its own for each", "run: sudo ussycode doctor")


def _tools(_config: Config) -> Check:
    lacking = prepare.missing_tools()
    if lacking:
        return Check("tools", False, "missing: " + ", ".join(lacking), "run: sudo make setup")
    return Check("tools", True, f"all {len(prepare.TOOLS)} programs are here")


def _memory(_config: Config) -> Check:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) >> 10
    todo = "" if free >= MEMORY_MIB else f"free some: {MEMORY_MIB} MiB are needed"
    return Check("memory", not todo, f"{free} MiB available", todo)


def _disk(config: Config) -> Check:
    folder = next(p for p in (config.data_dir, *config.data_dir.parents) if p.exists())
    free = shutil.disk_usage(folder).free >> 30
    todo = "" if free >= DISK_GIB else f"free some, or choose another --data-dir: {DISK_GIB} GiB are needed"
    return Check("disk", not todo, f"{free} GiB free at {folder}", todo)


def _ports(config: Config) -> Check:
    now = state.read(config.data_dir)
    if now is not None and state.alive(now.supervisor):
        return Check("ports", True, f"held by this ussycode (pid {now.supervisor.pid})")
    wanted = [config.ssh_port, config.https_port, config.http_port, config.metrics_port]
    wanted += [port for port in (config.dns_port, config.mail_port) if port]
    taken = [port for port in wanted if not _free(port)]
    if taken:
        return Check("ports", False, f"in use: {', '.join(map(str, taken))}", "ss -ltnp shows by whom")
    return Check("ports", True, f"free: {', '.join(map(str, wanted))}")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _tun(_config: Config) -> Check:
    found = Path("/dev/net/tun").exists()
    if found:
        return Check("tun", True, "/dev/net/tun is here")
    return Check("tun", False, "/dev/net/tun is missing", "run: modprobe tun")


def _key(config: Config) -> Check:
    count = len(prepare.admin_keys(config))
    if count:
        return Check("key", True, f"{count} SSH keys may register as admin")
    return Check("key", False, f"no SSH public key in {prepare.operator_home()}/.ssh", "run: ssh-keygen -t ed25519")


def _kernel(config: Config) -> Check:
    current = config.data_dir / "cache" / "kernel" / "current"
    found = "cached" if current.exists() else "not here yet; the first start fetches it"
    return Check("kernel", True, f"guest kernel {found}")


def _image(config: Config) -> Check:
    from ussycode.runtime.images.store import ImageStore

    found = ImageStore(config.data_dir / "images").find(config.default_image)
    said = f"built ({found.size >> 20} MiB)" if found else "not here yet; the first start builds it"
    return Check("image", True, f"{config.default_image} {said}")


def _kvm(config: Config) -> Check:
    from ussycode.runtime.kvm import Trial, glance, probe

    boot = _boot_files(config)
    verdict = probe(boot, config.data_dir / "cache") if boot else glance(Trial())
    if verdict is None:
        return Check("kvm", True, "there is a /dev/kvm; the first start tries it with a bounded boot")
    # Software emulation works everywhere, so an unusable KVM is slow and not a failure.
    how = "usable" if verdict.usable else f"not usable, VMs are emulated and slower: {verdict.why}"
    return Check("kvm", True, how, verdict.todo)


def _templates(config: Config) -> Check:
    """Memory that is spent so that `new` takes a copy; a host with little of it may be better without."""
    from ussycode.runtime.drivers.qemu import template

    if not config.template_mib:
        return Check("template", True, "templates are off: every new VM boots")
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    whole = int(lines["MemTotal"].split()[0]) >> 10
    held = [*template.every(config.data_dir)]
    found = f"{len(held)} templates take {sum(one.size for one in held) >> 20} of at most {config.template_mib} MiB"
    todo = "" if config.template_mib <= whole // 2 else f"this host has {whole} MiB: set a smaller --template-mib"
    return Check("template", True, found, todo)


def _walls(config: Config) -> Check:
    """What this host's kernel cannot enforce. VMs start all the same; whoever runs it should know what is weaker."""
    from ussycode.runtime import instance as instances
    from ussycode.runtime.images import confine
    from ussycode.runtime.privileged import cgroups

    if os.geteuid() != 0:
        return Check("walls", True, "not looked at without root")
    mine = instances.load(config.data_dir)
    groups = cgroups.detect(f"ussycode-{mine.slot}" if mine else "ussycode-doctor")
    if mine is None:
        groups.clear()
    weaker = [groups.why] if groups.why else []
    if not confine.landlock():
        weaker.append("no Landlock: what reads strangers' images is held by its user and by limits alone")
    how = f"cgroup v{groups.version} limits" if groups.version else "nothing limits"
    if weaker:
        return Check("walls", True, f"{how} each VM's process; weaker here: {'; '.join(weaker)}",
                     "a kernel with cgroup v2 and Landlock, as Debian's own, has all of them")
    return Check("walls", True, f"{how} each VM's process, and Landlock holds what reads strangers' images")


def _containers(config: Config) -> Check:
    if not config.containers:
        return Check("containers", True, "containers are off: every guest has a kernel of its own")
    if shutil.which("runc", path=host_tool.ADMIN_PATH) is None:
        return Check("containers", False, "containers are on, but runc is missing", "run: sudo apt-get install runc")
    old = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) < CONTAINER_KERNEL
    spaces = Path("/proc/sys/user/max_user_namespaces")
    if old or not spaces.exists() or spaces.read_text().strip() == "0":
        return Check("containers", False, "containers are on, but this kernel is too old or forbids user namespaces",
                     "a kernel from 5.19 on; sysctl user.max_user_namespaces=16384")
    return Check("containers", True, "containers are on: they share this host's kernel, so a hole in it opens the "
                 "host, and they see its figures of memory and processors; VMs do neither")


def _boot_files(config: Config) -> BootFiles | None:
    from ussycode.runtime.kernel import boot_files

    cached = (config.data_dir / "cache" / "kernel" / "current").exists()
    return boot_files(config.data_dir / "cache") if cached and os.geteuid() == 0 else None


def _front(config: Config) -> Check:
    if config.front == "none":
        return Check("front", True, "the edge itself ends TLS")
    if config.front == "caddy":
        from ussycode.cli import caddy

        return Check("front", True, f"caddy ends TLS: {caddy.program()}")
    from ussycode.cli.listeners import group_id

    group_id(config.front_group)
    return Check("front", True, f"a proxy of yours in the group {config.front_group} ends TLS")


def _limits(config: Config) -> Check:
    said = {
        "requests/s": config.limit_requests, "connections": config.limit_connections,
        "new connections/s": config.limit_handshakes, "requests/s of an account": config.limit_account,
    }
    shown = ", ".join(f"{count or 'any number of'} {what}" for what, count in said.items())
    return Check("limits", True, f"one address: {shown}")


def _network(config: Config) -> Check:
    import subprocess

    from ussycode.runtime import instance as instances
    from ussycode.runtime.net.blockers import forward_blockers

    if os.geteuid() != 0:
        return Check("network", True, "not looked at without root")
    listed = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, timeout=20, check=False)
    mine = instances.load(config.data_dir)
    if listed.returncode != 0:
        said = listed.stderr.decode(errors="replace").strip()[-200:]
        return Check("network", False, f"the rules of this host cannot be read: {said}", "run: nft list ruleset")
    found = forward_blockers(listed.stdout, mine.tap_prefix if mine else "uy")
    if found:
        return Check("network", False, "; ".join(found), "allow forwarding from the VMs' interfaces")
    return Check("network", True, "no firewall policy in the way of the VMs")


def _leftovers(config: Config) -> Check:
    """What crashes left behind; told and never removed, because it may be somebody's only copy."""
    from ussycode.runtime import instance as instances
    from ussycode.runtime import leftovers

    mine = instances.load(config.data_dir)
    if mine is None or os.geteuid() != 0:
        return Check("left", True, "nothing of an earlier run was looked for")
    found = (*leftovers.of_host(mine, leftovers.numbers(mine)), *_left_in_data(config, mine))
    if found:
        return Check("left", False, "; ".join(found), "nothing goes by itself; each sentence says what removes it")
    return Check("left", True, "no process, interface, rule or file of a VM that is not there")


def _left_in_data(config: Config, mine: Instance) -> tuple[str, ...]:
    from ussycode.runtime import leftovers
    from ussycode.runtime.drivers.qemu.template import PREFIX as TEMPLATES

    file = config.data_dir / "control" / "ussycode.db"
    if not file.exists():
        return ()
    # Templates are looked after by the platform itself: what is half done of one goes with the next start.
    known = _known_vms(file) | {place.name for place in (mine.data / "vms").glob(f"{TEMPLATES}*")}
    return leftovers.of_data(mine, known, _needed(config, mine))


def _needed(config: Config, mine: Instance) -> set[str]:
    """Disks that may be needed: those of the records; all, where one cannot be read or somebody works with them."""
    from ussycode.runtime.drivers.qemu import saved, storage, template

    vms, now = mine.data / "vms", state.read(config.data_dir)
    records = list(saved.every(vms))
    sure = len(records) == len(list(vms.glob("*/vm.json"))) and not (now is not None and state.alive(now.supervisor))
    if not sure:
        return {place.name.partition(".")[0] for place in mine.layers.iterdir()}
    return {*(name for record in records for name in storage.names(record)),
            *(one.layer for one in template.every(mine.data))}


def _known_vms(file: Path) -> frozenset[str]:
    from ussycode.base.clock import SystemClock
    from ussycode.base.db import Database
    from ussycode.vms import store

    db = Database(file, SystemClock())
    try:
        return db.read_now(store.ids)
    finally:
        db.close()


def _dns(config: Config) -> Check:
    if config.on_loopback:
        return Check("dns", True, f"{config.domain} is this machine, wherever it is asked")
    return asyncio.run(_ask_dns(config))


async def _ask_dns(config: Config) -> Check:
    """The records that the operator made once: of the domain, of every name below it, and of the zone of wildcards."""
    from ussycode.domains.lookups import Lookups, Silence

    lookups = Lookups.of(config)
    try:
        for name in (config.domain, f"some-vm.{config.domain}"):
            if not await lookups.addresses(name):
                todo = f"make A records: {config.domain}, *.{config.domain}"
                return Check("dns", False, f"{name} has no address", todo)
    except Silence:
        return Check("dns", False, f"DNS does not answer about {config.domain}", "look at dns_resolver, or resolv.conf")
    if config.dns_port and not await lookups.is_zone(config.delegation_zone):
        todo = f"start the platform, and make the record: {config.delegation_zone} NS {config.domain}"
        return Check("dns", False, f"{config.delegation_zone}, for wildcards' certificates, does not lead here", todo)
    return Check("dns", True, f"{config.domain} and the names below it have addresses")
