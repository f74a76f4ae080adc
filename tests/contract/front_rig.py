"""Real TLS terminators before a real edge, with the configurations that the platform writes."""
from __future__ import annotations

import asyncio
import grp
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.contract.edge_rig import Rig, running_edge
from ussycode.base.clock import SystemClock
from ussycode.base.pki import Authority, Issuer
from ussycode.cli import caddy, haproxy
from ussycode.config import Config, load

HOSTS = ("localhost", "demo.localhost", "open.localhost", "sockets.localhost")
CADDY_UID = 1_899_999_999
"""Somebody without any right on this machine."""


@dataclass
class Fronted:
    """An edge and the terminator before it. `port` and `http_port` are the terminator's."""

    rig: Rig
    which: str
    port: int
    http_port: int
    ca: Path
    process: asyncio.subprocess.Process
    said: Path
    config: Path
    alternate: int

    async def curl(self, *words: str) -> tuple[int, str]:
        """Real curl that trusts the terminator's authority."""
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--max-time", "60", "--cacert", str(self.ca), *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(errors="replace")

    def url(self, host: str, path: str = "/") -> str:
        """An address at the terminator."""
        return f"https://{host}:{self.port}{path}"


@asynccontextmanager
async def fronted(which: str, **settings: str) -> AsyncIterator[Fronted]:
    """A terminator, `caddy` or `haproxy`, that runs as a user of its own and answers."""
    folder = Path(tempfile.mkdtemp(prefix="ussycode-front-"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o711)
        port, http_port, metrics_port = free_ports(3)
        rig = await stack.enter_async_context(running_edge(folder, public_port=port))
        alternate = free_alternate()
        config = load({
            "https_port": str(port), "http_port": str(http_port), "listen": "127.0.0.1",
            "metrics_port": str(metrics_port),
            "alternate_ports": f"{alternate}-{alternate}", **settings,
        }, {})
        ca = _certificates(folder)
        edge = folder / "front.sock"
        start = _caddy if which == "caddy" else _haproxy
        process, file = await start(config, edge, folder)
        stack.push_async_callback(ended, process)
        made = Fronted(rig, which, port, http_port, ca, process, folder / "front.log", file, alternate)
        await _until_it_answers(made)
        yield made


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in opened]
    for one in opened:
        one.close()
    return ports


def free_alternate() -> int:
    """A port in the range of VMs' ports that nobody listens on now."""
    for port in range(9900, 3000, -1):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("every port is taken")


def _certificates(folder: Path) -> Path:
    """One certificate for each of HOSTS, by an authority of its own; the root's path."""
    authority = Authority.make(SystemClock())
    issuer = Issuer(authority.intermediate("localhost"), SystemClock())
    (folder / "certs").mkdir()
    for host in HOSTS:
        leaf = issuer.leaf(host)
        (folder / "certs" / f"{host}.pem").write_bytes(leaf.chain + leaf.key)
    signer = authority.intermediate("localhost")
    for name, content in (("root", authority.root_pem), ("signer", signer.certificate), ("key", signer.key)):
        (folder / f"front-{name}.pem").write_bytes(content)
    return folder / "front-root.pem"


async def _haproxy(config: Config, edge: Path, folder: Path) -> tuple[asyncio.subprocess.Process, Path]:
    os.chown(edge, 0, grp.getgrnam("haproxy").gr_gid)
    edge.chmod(0o660)
    file = folder / "haproxy.cfg"
    file.write_text(haproxy.configuration(config, edge, str(folder / "certs")))
    log = open(folder / "front.log", "wb")  # noqa: SIM115 - the process has it
    return await asyncio.create_subprocess_exec("haproxy", "-W", "-db", "-f", str(file), stdout=log, stderr=log), file


async def _caddy(config: Config, edge: Path, folder: Path) -> tuple[asyncio.subprocess.Process, Path]:
    os.chown(edge, 0, CADDY_UID)
    edge.chmod(0o660)
    home = folder / "caddy"
    home.mkdir(mode=0o700)
    os.chown(home, CADDY_UID, CADDY_UID)
    for name in ("root", "signer", "key"):
        os.chown(folder / f"front-{name}.pem", CADDY_UID, CADDY_UID)
    local = (str(folder / "front-root.pem"), str(folder / "front-signer.pem"), str(folder / "front-key.pem"))
    ask = await asyncio.start_server(_say_yes, "127.0.0.1", config.metrics_port)
    del ask  # lives as long as the loop
    text = caddy.caddyfile(
        config, edge, caddy.Sockets.opened(config.listen), caddy.Certificates(local=local), str(home),
        admin=f"unix/{home}/admin.sock",
    )
    file = folder / "Caddyfile"
    file.write_text(text)
    return await caddy.start(text, home, CADDY_UID, folder / "front.log", []), file


async def _say_yes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


async def _until_it_answers(made: Fronted) -> None:
    async with asyncio.timeout(30):
        while (await made.curl("-o", "/dev/null", made.url("localhost", "/healthz")))[0]:
            assert made.process.returncode is None, made.said.read_text()
            await asyncio.sleep(0.05)


async def ended(process: asyncio.subprocess.Process) -> None:
    """Tell it to end, and see that it does."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 20)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


def nobody() -> int:
    """Uid of somebody without rights."""
    return pwd.getpwnam("nobody").pw_uid
