"""The composition root: settings and sockets in, the whole control process out."""
from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from ussycode import config as settings
from ussycode.agent.dns import Forwarder, host_servers
from ussycode.agent.link import Guests, LocalLink, NoSpares, SpareMachines
from ussycode.agent.loop import Reconciler
from ussycode.base import schema
from ussycode.base.clock import SystemClock
from ussycode.base.db import Database
from ussycode.base.events import Event
from ussycode.base.pki import Intermediate, Issuer
from ussycode.base.telemetry import Telemetry, export_otlp, log_to_stderr
from ussycode.config import Config
from ussycode.domains import certificates
from ussycode.domains import checking as domains
from ussycode.domains.ordering import AcmeSigner
from ussycode.domains.zone import Zone, ZoneServer
from ussycode.doors.edgefeed.answers import Answers
from ussycode.doors.edgefeed.server import FeedServer
from ussycode.doors.metadata.server import MetadataDoor
from ussycode.doors.metrics.server import serve_metrics
from ussycode.doors.smtp.door import SmtpDoor
from ussycode.doors.smtp.tls import Certificate, GivenCertificate, MintedCertificate
from ussycode.doors.ssh.door import SshDoor
from ussycode.doors.ssh.hostkey import load_host_key, public_line
from ussycode.doors.web.app import serve_web
from ussycode.identity import ops as identity
from ussycode.identity import sessions, signing
from ussycode.identity.keys import PublicKey, read_public_key
from ussycode.mail import ops as mail
from ussycode.mail.relay import Mailer, Outbox, Relay
from ussycode.ports import App, ImageCatalog, Uses, Waiters
from ussycode.runtime.driver import Driver
from ussycode.runtime.drivers.both import Both, NoContainers, NodeDriver
from ussycode.runtime.drivers.container.driver import ContainerDriver
from ussycode.runtime.drivers.fake import FakeDriver
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.drivers.qemu.spares import Stock
from ussycode.runtime.drivers.qemu.templates import Figures, Limits
from ussycode.runtime.export import NOT_EXPORTED, Export, Form
from ussycode.runtime.images.pull import Pull, Puller
from ussycode.runtime.images.registry import Registries
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.images.uploads import Upload, Uploads
from ussycode.runtime.instance import Instance, load
from ussycode.runtime.net import facing
from ussycode.runtime.privileged.container_client import ContainerClient
from ussycode.runtime.privileged.protocol import Accel
from ussycode.sharing import asking, people, visitors
from ussycode.sharing import ops as sharing
from ussycode.tokens import ops as tokens_ops
from ussycode.tokens.verify import TokenVerifier
from ussycode.vms import firstboot, samples, snapshots, trash
from ussycode.vms import ops as vms
from ussycode.vms.policy import DEFAULT_SIZE
from ussycode.wire.control import ControlSettings

USES_SECONDS = 30.0
"""Between two writes of when keys and tokens were used last."""


def home(config: Config) -> Path:
    """Folder that only control may read: database, host key, certificate authority."""
    return config.data_dir / "control"


class ManagedDriver(Driver, Protocol):
    """A driver with a beginning and an end, and streams into its guests."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def on_change(self, listener: Callable[[], None]) -> None: ...


@dataclass(frozen=True)
class StoredImages:
    """Images on disk as commands see them."""

    store: ImageStore
    puller: Puller
    uploads: Uploads

    def names(self) -> Sequence[str]:
        """Names that are ready to boot."""
        return [image.name for image in self.store.list()]

    def login_user(self, image: str) -> str:
        """The user a shell of that image belongs to."""
        found = self.store.find(image)
        return found.login_user if found else "root"

    def default_port(self, image: str) -> int:
        """Port that the image's VMs show over HTTPS."""
        found = self.store.find(image)
        return found.default_port if found else 8000


    def find(self, image: str) -> Image | None:
        """What is known of an image that is here."""
        return self.store.find(image)

    async def pull(self, wanted: Pull, show: Callable[[str], Awaitable[None]]) -> Image:
        """The image, downloaded unless it is here."""
        return await self.puller.pull(wanted, show)

    async def take_in(self, upload: Upload, show: Callable[[str], Awaitable[None]]) -> Image:
        """An image of what is sent."""
        return await self.uploads.take(upload, show)

    async def forget(self, image: str) -> None:
        """Remove a pulled image."""
        await asyncio.to_thread(self.store.forget, image)

    async def evict(self, in_use: frozenset[str]) -> Sequence[str]:
        """Keep the cache of pulled images within its bounds."""
        return await asyncio.to_thread(self.store.evict, in_use)


@dataclass(frozen=True)
class NamedImages:
    """Images of the fake runtime: names without disks."""

    ready: tuple[str, ...]
    taken: dict[str, Image] = field(default_factory=dict)
    """What was uploaded, by name: what is in it is not looked at."""

    def names(self) -> Sequence[str]:
        """The names."""
        return self.ready

    def login_user(self, image: str) -> str:
        """The default image's user."""
        return "ussy"

    def default_port(self, image: str) -> int:
        """The default image's port."""
        return 8000

    def find(self, image: str) -> Image | None:
        """There are no disks to tell of, but of those that were uploaded."""
        return self.taken.get(image)

    async def pull(self, wanted: Pull, show: Callable[[str], Awaitable[None]]) -> Image:
        """Refused: there is no registry either."""
        raise vms.NO_SUCH_IMAGE(image=wanted.reference.repository.removeprefix("library/"), ready=", ".join(self.ready))

    async def take_in(self, upload: Upload, show: Callable[[str], Awaitable[None]]) -> Image:
        """An image that counts as large as what was sent."""
        hasher, size = hashlib.sha256(), 0
        async for chunk in upload.chunks:
            hasher.update(chunk)
            size += len(chunk)
        name = f"{upload.reference}@sha256:{hasher.hexdigest()}#{upload.owner}"
        self.taken[name] = Image(name, name, Path("/nonexistent"), "root", "tiny", size, 0.0, 0, 8000, {}, "")
        return self.taken[name]

    async def forget(self, image: str) -> None:
        """Nothing to remove."""

    async def evict(self, in_use: frozenset[str]) -> Sequence[str]:
        """Nothing to remove."""
        return []


class NoGuests:
    """The fake runtime has nothing to open a stream to."""

    def guest_address(self, vm: str) -> None:
        """Never."""

    def console(self, vm: str) -> str:
        """Empty."""
        return ""

    async def sample(self, vm: str) -> None:
        """Nothing."""

    async def listening(self, vm: str) -> None:
        """Nothing."""

    async def export(self, vm: str, form: Form) -> Export:
        """Refused: there is no disk."""
        raise NOT_EXPORTED(what="VM without a disk")


@dataclass(frozen=True)
class Node:
    """The node side of this process."""

    driver: ManagedDriver
    guests: Guests
    images: ImageCatalog
    templates: Figures = field(default_factory=Figures)
    spares: SpareMachines = field(default_factory=NoSpares)


def node(config: Config, accel: str) -> Node:
    """The node that the settings ask for."""
    if config.runtime == "fake":
        return Node(FakeDriver(), NoGuests(), NamedImages((config.default_image,)))
    instance = _instance(config)
    store = ImageStore(config.data_dir / "images")
    puller = Puller(store, Registries.of(config.registries), SystemClock())
    puller.clean()
    clock, helper = SystemClock(), ContainerClient(instance.helper_socket)
    first = (config.default_image, DEFAULT_SIZE.vcpus, DEFAULT_SIZE.memory_mib)
    limits = Limits(config.template_mib, first)
    stock = Stock(*first, DEFAULT_SIZE.disk_gib, config.spares if config.template_mib else 0)
    vms = QemuDriver(instance, store, helper, Accel(accel), clock, config.boot_timeout, limits=limits, spares=stock)
    boxes: NodeDriver = NoContainers()
    if config.containers:
        boxes = ContainerDriver(instance, store, helper, clock, config.boot_timeout)
    driver = Both(vms, boxes)
    catalog = StoredImages(store, puller, Uploads(store, SystemClock()))
    return Node(driver, driver, catalog, vms.templates.figures, vms)


def _instance(config: Config) -> Instance:
    instance = load(config.data_dir)
    assert instance is not None, "the supervisor claims the instance before it starts control"
    return instance


def control(given: ControlSettings) -> int:
    """Be the control process until SIGTERM; the exit code."""
    config = settings.load(given.config, {})
    log_to_stderr(config.log_json)
    if config.otlp_endpoint:
        export_otlp(config.otlp_endpoint, "ussycode-control")
    try:
        asyncio.run(_serve(config, given))
    except Exception:  # the outermost frame of the process
        structlog.get_logger("ussycode").exception("control ends")
        # Threads that still wait for a guest or the disk must not keep a dead door alive.
        os._exit(1)
    return 0


async def _serve(config: Config, given: ControlSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock = SystemClock()
    db = Database(home(config) / "ussycode.db", clock)
    schema.migrate(db.engine)
    side = node(config, given.accel)
    await side.driver.open()
    telemetry = Telemetry("ussycode")
    loop = Reconciler(
        side.driver, lambda: sharing.wants(app), lambda seen: vms.observe(app, seen), clock, telemetry=telemetry
    )
    side.driver.on_change(loop.nudge)
    _show_templates(telemetry, side.templates)
    key = load_host_key(home(config) / "ssh_host_ed25519_key")
    app = App(
        config, db, clock, LocalLink(side.guests, side.spares), side.images, Waiters(), telemetry, loop.nudge,
        Uses(clock), public_line(key),
    )
    await identity.approve_admins(app, _keys(given.admin_keys))
    await signing.rotate(app)
    tokens = TokenVerifier(app)
    feed = FeedServer(app, frozenset({0, given.edge_uid}), Answers(app, tokens))
    door = SshDoor(app, [key])
    # Who waits hears last: by then edges and doors know, and what was waited for is true everywhere.
    zone = Zone.of(config.delegation_zone, config.domain)
    certifier = _certifier(app, given, zone)
    for listener in (
        _counted(app), tokens.heard, certifier.heard, feed.heard, door.heard, _nudged(app), app.waiters.heard,
    ):
        db.listen(listener)
    await loop.begin()
    edges = Path(given.edge_sockets)
    async with asyncio.TaskGroup() as group:
        running = [
            group.create_task(loop.run(), name="reconciler"),
            group.create_task(_write_uses(app), name="uses"),
            group.create_task(_look_after(app), name="housekeeping"),
            group.create_task(certifier.run(), name="certificates"),
            group.create_task(_zone_server(given, zone).run(), name="zone"),
            group.create_task(mail.deliver_for_ever(app, mailer(config)), name="mail"),
            group.create_task(feed.serve(_listening(given.feed_fd)), name="feed"),
            group.create_task(serve_web(app, tokens, _listening(given.web_fd)), name="web"),
            group.create_task(
                serve_metrics(app, _listening(given.metrics_fd), edges, given.certificate_secret), name="metrics"),
            group.create_task(door.serve([_listening(fd) for fd in given.ssh_fds]), name="ssh"),
        ]
        if given.mail_fds:
            smtp = SmtpDoor(app, _mail_certificate(app, given))
            running.append(group.create_task(smtp.serve([_listening(fd) for fd in given.mail_fds]), name="smtp"))
        if config.runtime == "qemu":
            running.append(group.create_task(_resolver(config).run(), name="resolver"))
            running.append(group.create_task(_metadata(app), name="metadata"))
        await stop.wait()
        await door.close()
        for task in running:
            task.cancel()
    await side.driver.close()
    db.close()


def _show_templates(telemetry: Telemetry, figures: Figures) -> None:
    telemetry.watch("ussycode_templates", "templates that new VMs can be copies of", lambda: figures.held)
    telemetry.watch("ussycode_templates_bytes", "memory that templates take", lambda: figures.size)
    telemetry.watch("ussycode_vms_copied", "VMs that came up as copies of a template", lambda: figures.forked)
    telemetry.watch("ussycode_vms_not_copied", "copies that did not come up and booted", lambda: figures.failed)


async def _write_uses(app: App) -> None:
    while True:
        await asyncio.sleep(USES_SECONDS)
        await tokens_ops.write_uses(app)
        await sessions.end_idle(app)


CHORES = (
    samples.take, snapshots.take_due, trash.expire, firstboot.deliver_all, signing.rotate, domains.look_at_due,
    people.end_over, asking.end_over, visitors.forget_old,
)


async def _look_after(app: App) -> None:
    """Samples, daily snapshots and the trash, each minute: what is not due costs one look."""
    while True:
        await asyncio.sleep(samples.INTERVAL)
        for chore in CHORES:
            try:
                await chore(app)
            except Exception:  # the outermost frame of a chore: one that breaks must not end the others
                app.telemetry.log.exception("a chore failed", chore=chore.__module__)


def _certifier(app: App, given: ControlSettings, zone: Zone) -> certificates.Certifier:
    local: certificates.Signer = certificates.NoSigner()
    if given.signer_key:
        signer = Intermediate(given.signer_certificate.encode(), given.signer_key.encode())
        local = certificates.LocalSigner(Issuer(signer, app.clock))
    ordered = AcmeSigner(app, zone, _in_memory(given.acme_root) or True) if given.dns_udp_fds else local
    return certificates.Certifier(app, local, ordered)


def _in_memory(text: str) -> str:
    """A file of this process for a library that takes files only; empty for nothing."""
    if not text:
        return ""
    fd = os.memfd_create("ussycode-roots", os.MFD_CLOEXEC)
    os.write(fd, text.encode())
    return f"/proc/self/fd/{fd}"


def _zone_server(given: ControlSettings, zone: Zone) -> ZoneServer:
    udp, tcp = ([_listening(fd) for fd in fds] for fds in (given.dns_udp_fds, given.dns_tcp_fds))
    return ZoneServer(zone, udp, tcp)


def _mail_certificate(app: App, given: ControlSettings) -> Certificate:
    chain, key = given.mail_certificate.encode(), given.mail_key.encode()
    if given.mail_mints:
        return MintedCertificate(Intermediate(chain, key), app.config.domain, app.clock)
    return GivenCertificate(chain, key)


def mailer(config: Config) -> Mailer:
    """The relay that the settings name, or the outbox without one."""
    if not config.smtp_host:
        return Outbox()
    return Relay(config.smtp_host, config.smtp_port, config.smtp_security, config.smtp_user, config.smtp_password,
                 config.sender)


def _resolver(config: Config) -> Forwarder:
    """The guests' DNS: reachable from taps alone, forwards to the servers this host asks."""
    port = _instance(config).dns_port
    return Forwarder(facing.udp(port), facing.tcp(port), host_servers)


async def _metadata(app: App) -> None:
    instance = _instance(app.config)
    await MetadataDoor(app, instance.pool).serve(facing.tcp(instance.metadata_port))


def _listening(fd: int) -> socket.socket:
    made = socket.socket(fileno=fd)
    made.setblocking(False)
    return made


def _keys(lines: Sequence[str]) -> list[PublicKey]:
    return [read_public_key(line) for line in lines]


def _counted(app: App) -> Callable[[Sequence[Event]], Awaitable[None]]:
    async def count(events: Sequence[Event]) -> None:
        for event in events:
            app.telemetry.event(event.kind)

    return count


def _nudged(app: App) -> Callable[[Sequence[Event]], Awaitable[None]]:
    async def nudge(events: Sequence[Event]) -> None:
        # Keys and names reach running guests through the reconciler too.
        if any(e.kind.startswith(("key.", "vm.renamed", "share.", "email.")) for e in events):
            app.nudge()

    return nudge
