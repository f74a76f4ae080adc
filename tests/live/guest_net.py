"""Two guests whose words reach us over their agents, and what they can be asked to send."""
from __future__ import annotations

import json
from dataclasses import dataclass

from tests.contract.check_driver import want
from tests.live.node import Node
from tests.live.surroundings import PORT, Counters
from ussycode.agent.link import LocalLink
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.guest.execs import ExecSpec, Exit, Stderr, Stdout

ONE, TWO = want("vm_isolationoneaaaa", 2), want("vm_isolationtwoaaaa", 3)
DEAF = "deaf"

KNOCK = """
import json, selectors, socket, sys, time
doors, source, said = json.loads(sys.argv[1]), sys.argv[2], {}
look = selectors.DefaultSelector()
for kind, host, port in doors:
    name = f"{kind} {host} {port}"
    said[name] = "deaf"
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET,
                      socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.setblocking(False)
    try:
        if source: s.bind((source, 0))
        s.connect_ex((host, port))
        if kind == "udp": s.send(b"hello")
    except OSError as error:
        said[name] = str(error); continue
    look.register(s, selectors.EVENT_READ, name)
end = time.monotonic() + float(sys.argv[3])
while "deaf" in said.values() and time.monotonic() < end:
    for key, _ in look.select(0.1):
        look.unregister(key.fileobj)
        try: said[key.data] = key.fileobj.recv(200).decode()
        except OSError as error: said[key.data] = str(error)
print(json.dumps(said))
"""
"""Knocks at many doors at once and says what came back from each within a few seconds."""

FRAMES = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0))
for frame in sys.argv[2:]:
    for _ in range(int(sys.argv[1])): s.send(bytes.fromhex(frame))
"""
"""Sends frames just as they are given."""

PING = """
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); s.settimeout(2)
body = struct.pack(">BBHHH", 8, 0, 0, 7, 1); total = sum(struct.unpack(">4H", body))
s.sendto(struct.pack(">BBHHH", 8, 0, 0xFFFF - total, 7, 1), (sys.argv[1], 0))
while True:
    got = s.recv(200)
    if got[20] == 0 and socket.inet_ntoa(got[12:16]) == sys.argv[1]: break
"""
"""A ping from Python: the minimal image has no ping program."""


@dataclass
class Pair:
    """Two running guests and the node they run on."""

    node: Node
    driver: QemuDriver

    @property
    def dropped(self) -> Counters:
        """What the rules of this node dropped."""
        return Counters(self.node.instance.table)

    async def says(self, vm: str, command: str) -> tuple[int, str]:
        """Status and output of a command in a guest."""
        out, status = b"", -1
        async for event in await LocalLink(self.driver).open_exec(vm, ExecSpec(cmd=command, user="root")):
            match event:
                case Stdout(data) | Stderr(data):
                    out += data
                case Exit(code):
                    status = code
        return status, out.decode(errors="replace").strip()

    async def python(self, vm: str, script: str, *words: str) -> tuple[int, str]:
        """A script of ours in a guest."""
        given = " ".join(f"'{word}'" for word in words)
        return await self.says(vm, f"python3 - {given} <<'END_OF_SCRIPT'\n{script}\nEND_OF_SCRIPT\n")

    async def knock(
        self, vm: str, *doors: tuple[str, str, int], source: str = "", seconds: float = 2.5
    ) -> dict[str, str]:
        """What each door (tcp or udp, host, port) answered, `deaf` for silence."""
        status, said = await self.python(vm, KNOCK, json.dumps(doors), source, str(seconds))
        assert status == 0, said
        return {name: words for name, words in json.loads(said).items()}

    async def hears(self, vm: str, host: str, port: int = PORT, kind: str = "tcp", source: str = "") -> str:
        """What one door answered."""
        return (await self.knock(vm, (kind, host, port), source=source))[f"{kind} {host} {port}"]

    async def pings(self, vm: str, host: str) -> bool:
        """Whether a ping is answered."""
        return (await self.python(vm, PING, host))[0] == 0

    async def sends(self, vm: str, *frames: str, times: int = 1) -> None:
        """Put frames (in hex) on the guest's wire as they are."""
        assert await self.python(vm, FRAMES, str(times), *frames) == (0, "")
