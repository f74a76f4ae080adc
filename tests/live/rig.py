"""The real platform for tests: `ussycode up --detach` as an operator types it, real OpenSSH, real curl."""
from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = (sys.executable, "-m", "ussycode")
ROWS_AND_COLUMNS = (30, 100)
UP_SECONDS, DOWN_SECONDS = 900, 90


@dataclass
class Done:
    """A finished program."""

    status: int
    out: str
    err: str


@dataclass
class Platform:
    """One running platform and a person at its keyboard."""

    data: Path
    home: Path
    ports: Mapping[str, int]
    options: tuple[str, ...] = ()
    people: dict[str, Path] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """Options of every operator command."""
        ports = [w for name, port in self.ports.items() for w in (f"--{name}-port", str(port))]
        return ["--data-dir", str(self.data), *ports, "--admin-keys", str(self.home / "admin.pub"), *self.options]

    def ussycode(self, *verb: str, seconds: float = 60) -> Done:
        """An operator command."""
        return self.program(*PROGRAM, *verb, *self.words, seconds=seconds)

    def program(self, *argv: str, seconds: float = 60, stdin: bytes = b"", who: str = "admin") -> Done:
        """Any program, with `ssh` and friends being `who`."""
        env = dict(os.environ, PATH=f"{self.person(who)}:{os.environ['PATH']}", HOME=str(self.home), LC_ALL="C.UTF-8")
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=seconds, env=env, check=False)
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def person(self, name: str) -> Path:
        """Folder of wrappers that make ssh, scp, sftp and ssh-keygen act as somebody with a key of their own."""
        if name not in self.people:
            self.people[name] = self._make_person(name)
        return self.people[name]

    def _make_person(self, name: str) -> Path:
        folder = self.home / name
        folder.mkdir()
        key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True)
        (folder / "config").write_text(
            f"Host *\n  IdentityFile {key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
            f"  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n  User {name}\n  ServerAliveInterval 30\n"
        )
        for tool in ("ssh", "scp", "sftp"):
            (folder / tool).write_text(f'#!/bin/sh\nexec /usr/bin/{tool} -F {folder}/config "$@"\n')
            (folder / tool).chmod(0o755)
        return folder

    def ssh(self, *words: str, who: str = "admin", stdin: bytes = b"", seconds: float = 60) -> Done:
        """`ssh -p PORT WORDS…`."""
        return self.program("ssh", "-p", str(self.ports["ssh"]), *words, who=who, stdin=stdin, seconds=seconds)

    def lobby(self, *words: str, who: str = "admin", seconds: float = 60) -> Done:
        """One command in the lobby."""
        return self.ssh("localhost", *words, who=who, seconds=seconds)

    def curl(self, *words: str, seconds: float = 30) -> Done:
        """curl that trusts the platform's root."""
        return self.program("curl", "-sS", "--max-time", "20", "--cacert", str(self.home / "root.pem"), *words,
                            seconds=seconds)

    def url(self, host: str, path: str = "/") -> str:
        """An HTTPS address of the platform."""
        return f"https://{host}:{self.ports['https']}{path}"

    @contextmanager
    def terminal(self, *argv: str, who: str = "admin") -> Iterator[Terminal]:
        """A program on a terminal of its own."""
        env = dict(os.environ, PATH=f"{self.person(who)}:{os.environ['PATH']}", TERM="xterm", LC_ALL="C.UTF-8")
        pid, fd = pty.fork()
        if pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", *ROWS_AND_COLUMNS, 0, 0))
            os.execvpe(argv[0], argv, env)
        made = Terminal(pid, fd)
        try:
            yield made
        finally:
            made.end()


@dataclass
class Terminal:
    """What a person types and reads."""

    pid: int
    fd: int
    seen: str = ""

    def type(self, text: str) -> None:
        """Send keystrokes."""
        os.write(self.fd, text.encode())

    def until(self, pattern: str, seconds: float = 30) -> str:
        """Everything shown up to and including a match of `pattern`; fails with what was shown instead."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.seen)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} did not appear in:\n{self.seen[-2000:]!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.seen += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"the program ended before {pattern!r}:\n{self.seen[-2000:]!r}") from None
        shown, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return shown

    def status(self, seconds: float = 20) -> int:
        """Exit status once the program has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.05)[0]:
                with suppress(OSError):
                    self.seen += os.read(self.fd, 65536).decode(errors="replace")
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"still running; it showed:\n{self.seen[-2000:]!r}")

    def end(self) -> None:
        """Close the terminal and end what still runs on it."""
        os.close(self.fd)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def until(check: object, seconds: float, what: str) -> None:
    """Wait until `check()` is true; fails naming `what`."""
    deadline = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


@contextmanager
def platform(
    data: Path, home: Path, live: Path, *options: str, ports: Mapping[str, int] | None = None,
) -> Iterator[Platform]:
    """A platform on free ports or `ports`, with kernel and images taken from `live`; down and gone afterwards."""
    data.mkdir(mode=0o755)
    for shared in ("cache", "images"):
        (data / shared).symlink_to(live / shared)
    made = Platform(data, home, ports or free_ports(), options)
    made.person("admin")
    (home / "admin.pub").write_bytes((home / "admin" / "key.pub").read_bytes())
    try:
        began = made.ussycode("up", "--detach", seconds=UP_SECONDS)
        assert began.status == 0, began.out + began.err + logs(data)
        (home / "root.pem").write_text(made.ussycode("ca").out)
        yield made
    finally:
        made.ussycode("down", seconds=DOWN_SECONDS)
        shutil.rmtree(data, ignore_errors=True)


def free_ports() -> dict[str, int]:
    """Ports that nothing listens on, for each door of a platform."""
    with ExitStack() as stack:
        probes = {name: stack.enter_context(socket.socket()) for name in ("ssh", "https", "http", "metrics", "mail")}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for name, probe in probes.items()}


def logs(data: Path) -> str:
    """The ends of all logs, for a failed assertion."""
    return "".join(f"\n--- {f.name}\n" + f.read_text(errors="replace")[-3000:] for f in data.glob("log/*.log"))
