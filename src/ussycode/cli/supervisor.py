"""Keeps the platform's processes running: helper, control, edges. VMs belong to nobody and survive them all."""
from __future__ import annotations

import asyncio
import os
import resource
import secrets
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ussycode.base.clock import SystemClock
from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.base.pki import open_authority
from ussycode.cli import children, front, state
from ussycode.cli.listeners import Listeners
from ussycode.cli.prepare import Prepared
from ussycode.cli.roles import HelperSettings, NetSettings, pack
from ussycode.config import Config
from ussycode.wire.control import ControlSettings

READY_SECONDS = 30.0
"""How long the processes may take from their start to the first answered request."""
STOP_SECONDS = 10.0
"""How long a process may take to end before it is killed."""
DESCRIPTORS = 65_536
"""Open files of one process: each visitor on a WebSocket takes two."""
BAD_CERTIFICATE = ErrorCode(
    "up.bad_certificate", Kind.USAGE, "cannot read {file}: {why}", hint="check tls_cert, tls_key and acme_root"
)
NOT_REPLACED = ErrorCode(
    "reload.not_ready", Kind.FAILED, "a new edge could not serve, so the old one goes on: {why}"
)
LOG_BYTES = 64 << 20
"""A log that grows beyond this is kept once as `.1` and begun anew."""
NOT_READY = ErrorCode(
    "up.not_ready", Kind.FAILED, "the platform did not become ready: {why}", hint="the whole log: {log}"
)


@dataclass
class Supervisor:
    """Starts and restarts the processes of one instance."""

    config: Config
    prepared: Prepared
    listeners: Listeners
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    phase: str = "starting"
    watching: list[asyncio.Task[None]] = field(default_factory=list)
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Shared by control and the caddy in front; new with each start."""
    retired: list[asyncio.subprocess.Process] = field(default_factory=list)
    """Edges that were replaced and still have visitors."""
    reloads: int = 0
    reload_error: str = ""

    async def run(self, when_ready: asyncio.Future[None] | None = None) -> None:
        """Serve until SIGTERM or SIGINT. Raises NOT_READY when the first start fails; ends every process then."""
        _allow_many_descriptors()
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, asked.set)
        self._note()
        try:
            await self._start_all()
            self.phase = "ready"
            self._note()
            self.watching.append(asyncio.create_task(self._reload_when(asked)))
            if when_ready is not None:
                when_ready.set_result(None)
            await told.wait()
        finally:
            await self._stop_all()

    async def _start_all(self) -> None:
        await self._start("helper")
        await self._until(self._helper_answers, "the privileged helper does not answer")
        await self._start("control")
        for number in range(self.config.edge_processes):
            await self._start(f"edge{number}")
        if self.config.front == "caddy":
            await self._start("front")
        await self._until(self._lobby_answers, "the SSH door does not answer")
        await self._until(self._edge_answers, "the web does not answer")
        self.watching = [asyncio.create_task(self._watch(role)) for role in list(self.running)]
        self.watching.append(asyncio.create_task(self._rotate()))

    async def _start(self, role: str) -> None:
        if role == "front":
            instance = self.prepared.instance
            self.running[role] = await front.start(
                self.config, instance, self.listeners, self.log(role), self.secret,
            )
        else:
            await self._start_ours(role)
        self._note()

    async def _start_ours(self, role: str) -> None:
        kind, number = role.rstrip("0123456789"), role.lstrip("abcdefghijklmnopqrstuvwxyz")
        settings, fds, uid = getattr(self, "_" + kind)(int(number or 0))
        spec = children.Role(kind, uid, self.log(role))
        try:
            self.running[role] = await children.start(spec, settings, fds)
        finally:
            os.close(settings)
            self._close_copies(fds)

    def _close_copies(self, fds: Sequence[int]) -> None:
        kept = {s.fileno() for s in self.listeners.all()}
        for fd in set(fds) - kept:  # made for this start only
            os.close(fd)

    def log(self, role: str) -> Path:
        """Where a process writes its log lines."""
        return self.config.data_dir / "log" / f"{role}.log"

    def _helper(self, _number: int) -> tuple[int, list[int], int]:
        boot = self.prepared.boot
        given = HelperSettings(
            str(self.config.data_dir), str(boot.kernel), str(boot.initrd), boot.version, boot.digest,
            str(boot.guest), self.prepared.tsc_khz, self.config.containers, NetSettings.of(self.config),
        )
        return pack(given), [], 0

    def _control(self, _number: int) -> tuple[int, list[int], int]:
        ours = self.listeners
        ssh = [s.fileno() for s in ours.ssh]
        udp, tcp = [s.fileno() for s in ours.dns_udp], [s.fileno() for s in ours.dns_tcp]
        mail = [s.fileno() for s in ours.mail]
        signer = self._authority_of_control() if front.signs_locally(self.config) else ("", "")
        certificate = self._certificate_of_mail() if mail else ("", "")
        given = ControlSettings(
            config=self.config.texts(), accel=self.prepared.accel, admin_keys=self.prepared.admin_keys,
            edge_uid=self.prepared.instance.edge_uid, ssh_fds=ssh, web_fd=ours.web.fileno(),
            feed_fd=ours.feed.fileno(), metrics_fd=ours.metrics.fileno(), edge_sockets=str(self._edge_sockets()),
            signer_certificate=signer[0], signer_key=signer[1], dns_udp_fds=udp, dns_tcp_fds=tcp,
            acme_root=_text(self.config.acme_root),
            certificate_secret=self.secret if self.config.front == "caddy" else "",
            mail_fds=mail, mail_certificate=certificate[0], mail_key=certificate[1],
            mail_mints=self.config.tls_cert is None,
        )
        fds = [*ssh, *udp, *tcp, *mail, ours.web.fileno(), ours.feed.fileno(), ours.metrics.fileno()]
        return pack(given), fds, self.prepared.instance.control_uid

    def _edge(self, number: int, ready: int = -1) -> tuple[int, list[int], int]:
        from ussycode.doors.edge.settings import EdgeSettings, write

        instance, config = self.prepared.instance, self.config
        ours = self.listeners
        behind = [ours.front.fileno()] if ours.front is not None else []
        alternate = [(s.fileno(), port) for port, s in ours.alternate]
        https = [s.fileno() for s in ours.https[number]] if not behind else []
        http = [s.fileno() for s in ours.http] if number == 0 and not behind else []
        given_fds = [_in_memory(f) for f in (config.tls_cert, config.tls_key) if f is not None and not behind]
        files = [(f"/proc/self/fd/{given_fds[0]}", f"/proc/self/fd/{given_fds[1]}")] if given_fds else []
        signer = self._authority_of_edge() if not files and not behind else ("", "")
        given = EdgeSettings(
            domain=config.domain, https_fds=https, http_fds=http, front_fds=behind,
            alternate_fds=alternate, control_socket=str(instance.run / "web.sock"),
            feed_socket=str(instance.run / "feed.sock"), ca_certificate=signer[0], ca_key=signer[1],
            certificate_files=files, log_path=str(config.data_dir / "edge" / "access.log"),
            lobby=config.ssh_command(), limit_requests=config.limit_requests,
            limit_connections=config.limit_connections, limit_handshakes=config.limit_handshakes,
            limit_account=config.limit_account, limit_exempt=list(config.limit_exempt), retire=config.edge_retire,
            ready_fd=ready,
            public_port=config.https_port, worker=number,
            operator_socket=str(self._edge_sockets() / f"{number}.sock"),
        )
        waiting = [ready] if ready >= 0 else []
        fds = [*https, *http, *behind, *(fd for fd, _ in alternate), *given_fds, *waiting]
        return write(given), fds, instance.edge_uid

    def _edge_sockets(self) -> Path:
        """Folder for the edges' own figures; control's group may enter it."""
        instance = self.prepared.instance
        folder = instance.run / "edge"
        folder.mkdir(mode=0o750, exist_ok=True)
        os.chown(folder, instance.edge_uid, instance.control_uid)
        folder.chmod(0o2750)
        return folder

    def _authority_of_edge(self) -> tuple[str, str]:
        made = open_authority(self.config.data_dir / "ca", SystemClock()).intermediate(self.config.domain)
        return made.certificate.decode(), made.key.decode()

    def _certificate_of_mail(self) -> tuple[str, str]:
        config = self.config
        if config.tls_cert is not None:
            return _text(config.tls_cert), _text(config.tls_key)
        return self._authority_of_edge()

    def _authority_of_control(self) -> tuple[str, str]:
        made = open_authority(self.config.data_dir / "ca", SystemClock()).foreign_intermediate(self.config.domain)
        return made.certificate.decode(), made.key.decode()

    async def _helper_answers(self) -> bool:
        return self.prepared.instance.helper_socket.exists()

    async def _edge_answers(self) -> bool:
        if self.config.front != "none":
            return await asyncio.to_thread(front.answers, self.config, self.prepared.instance)
        return await asyncio.to_thread(_answers, self.config)

    async def _lobby_answers(self) -> bool:
        return await asyncio.to_thread(_greets, self.config)

    async def _until(self, check: object, why: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not await check():  # type: ignore[operator]
            dead = next((r for r, p in self.running.items() if p.returncode is not None), None)
            if dead is not None:
                raise NOT_READY(why=f"{dead} ended: {last_line(self.log(dead))}", log=self.log(dead))
            if time.monotonic() > deadline:
                raise NOT_READY(why=why, log=self.log("control"))
            await asyncio.sleep(0.05)

    async def _watch(self, role: str) -> None:
        pause = 0.2
        while True:
            started = time.monotonic()
            process = self.running[role]
            await process.wait()
            if self.running[role] is not process:  # it was replaced by another one
                continue
            # A process that lived for a while gets a quick restart; one that dies at once waits longer each time.
            pause = 0.2 if time.monotonic() - started > 30 else min(pause * 2, 10)
            await asyncio.sleep(pause)
            try:
                await self._start(role)
            except Exception as why:  # the outermost frame of one role: tried again, later each time
                print(f"{role} could not be started: {why}", file=sys.stderr, flush=True)

    async def _reload_when(self, asked: asyncio.Event) -> None:
        while True:
            await asked.wait()
            asked.clear()
            try:
                for number in range(self.config.edge_processes):
                    await self._replace(number)
                self.reload_error = ""
            except Failure as failure:
                self.reload_error = failure.sentence
                print(f"the edges were not replaced: {failure.sentence}", file=sys.stderr, flush=True)
            self.reloads += 1
            self._note()

    async def _replace(self, number: int) -> None:
        """Start an edge beside the one that runs; only when it can serve does the old one stop accepting."""
        role = f"edge{number}"
        heard, said = os.pipe()
        settings, fds, uid = self._edge(number, said)
        try:
            made = await children.start(children.Role("edge", uid, self.log(role)), settings, fds)
        finally:
            os.close(settings)
            self._close_copies(fds)
        ready = await asyncio.to_thread(_hear, heard, READY_SECONDS)
        if not ready:
            await _end(made)
            raise NOT_REPLACED(why=last_line(self.log(role)))
        old, self.running[role] = self.running[role], made
        self.retired = [one for one in self.retired if one.returncode is None] + [old]
        with suppress(ProcessLookupError):
            old.send_signal(signal.SIGUSR1)
        self._note()

    async def _rotate(self) -> None:
        # Only root's own folder: in a folder of another user, names could be made to lead elsewhere. The edge
        # turns its access log over by itself.
        while True:
            await asyncio.sleep(30)
            for file in (self.config.data_dir / "log").glob("*.log"):
                with suppress(OSError):
                    if file.stat().st_size > LOG_BYTES:
                        await asyncio.to_thread(_keep_once, file)

    async def _stop_all(self) -> None:
        self.phase = "stopping"
        with suppress(OSError):
            self._note()
        for task in self.watching:
            task.cancel()
        await asyncio.gather(*self.watching, return_exceptions=True)
        roles = sorted(self.running, key=lambda r: ("fron", "edge", "cont", "help").index(r[:4]))
        await asyncio.gather(*map(_end, self.retired))
        for role in roles:
            await _end(self.running[role])
        self.running.clear()
        state.path(self.config.data_dir).unlink(missing_ok=True)

    def _note(self) -> None:
        config = self.config
        alive = [state.child(r, p.pid) for r, p in self.running.items() if p.returncode is None]
        alive += [state.child(f"edge-retired-{p.pid}", p.pid) for p in self.retired if p.returncode is None]
        ports = {"ssh": config.ssh_port, "https": config.https_port, "http": config.http_port,
                 "metrics": config.metrics_port}
        ports |= {"mail": config.mail_port} if config.mail_port else {}
        me = state.child("supervisor", os.getpid())
        state.write(config.data_dir, state.State(
            self.phase, me, alive, config.domain, ports, self.reloads, self.reload_error,
        ))


def _allow_many_descriptors() -> None:
    """A login session's 1024 would be a limit of visitors; QEMU gets its own, lower one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _in_memory(file: Path) -> int:
    """The content of a file that only root may read, for a process that is not root."""
    try:
        content = file.read_bytes()
    except OSError as why:
        raise BAD_CERTIFICATE(file=file, why=why.strerror) from None
    fd = os.memfd_create("ussycode-tls")
    os.write(fd, content)
    return fd


def _text(file: Path | None) -> str:
    """The content of a file that only root may read; empty for none."""
    try:
        return file.read_text() if file is not None else ""
    except (OSError, ValueError) as why:
        raise BAD_CERTIFICATE(file=file, why=why) from None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _hear(fd: int, seconds: float) -> bool:
    """Whether a byte comes through a pipe in time; closes it."""
    try:
        readable, _, _ = select.select([fd], [], [], seconds)
        return bool(readable) and os.read(fd, 1) == b"1"
    finally:
        os.close(fd)


def _answers(config: Config) -> bool:
    """Whether the web answers: TLS, edge and control are then up."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only asks whether somebody answers
    request = f"GET /healthz HTTP/1.1\r\nHost: {config.domain}:{config.https_port}\r\nConnection: close\r\n\r\n"
    try:
        with (
            socket.create_connection((_near(config), config.https_port), 2) as plain,
            context.wrap_socket(plain, server_hostname=config.domain) as secure,
        ):
            secure.sendall(request.encode())
            return secure.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _greets(config: Config) -> bool:
    """Whether the SSH door says its name."""
    try:
        with socket.create_connection((_near(config), config.ssh_port), 2) as plain:
            return plain.recv(4) == b"SSH-"
    except OSError:
        return False


def _near(config: Config) -> str:
    """An address of this host at which the platform listens."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.listen[0], config.listen[0])  # noqa: S104


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    try:
        lines: Sequence[str] = log.read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    return next((line for line in reversed(lines) if line.strip()), "it wrote nothing")


def _keep_once(file: Path) -> None:
    # Copy and truncate: the writers append, so they go on in the same file.
    with open(file, "rb") as source, open(file.with_suffix(".log.1"), "wb") as kept:
        os.sendfile(kept.fileno(), source.fileno(), 0, LOG_BYTES * 2)
    os.truncate(file, 0)
