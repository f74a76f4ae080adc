"""Everything that can go wrong between the host and a guest agent."""
from __future__ import annotations

from collections.abc import Mapping

from ussycode.base.errors import ErrorCode, Failure, Kind

NO_COMPILER = ErrorCode(
    "guest.no_compiler", Kind.UNAVAILABLE, "no musl C compiler is installed, so the guest program cannot be built",
    hint="apt-get install musl-tools linux-libc-dev",
)
BUILD_FAILED = ErrorCode("guest.build_failed", Kind.FAILED, "the guest program does not compile: {why}")
REFUSED = ErrorCode("guest.refused", Kind.UNAVAILABLE, "nothing listens there inside the VM")
UNREACHABLE = ErrorCode("guest.unreachable", Kind.UNAVAILABLE, "the address cannot be reached from inside the VM")
TIMEOUT = ErrorCode("guest.timeout", Kind.TIMEOUT, "the VM did not answer in time")
GONE = ErrorCode("guest.gone", Kind.UNAVAILABLE, "the VM closed the connection")
AUTH = ErrorCode("guest.auth", Kind.FORBIDDEN, "the VM does not accept the secret of this boot")
PROTOCOL = ErrorCode("guest.protocol", Kind.UNAVAILABLE, "the VM's agent speaks out of turn: {why}")
NO_USER = ErrorCode("guest.no_user", Kind.FAILED, "the VM has no such login user")
NO_SHELL = ErrorCode("guest.no_shell", Kind.FAILED, "the VM's image has no shell")
NO_FILE = ErrorCode("guest.no_file", Kind.FAILED, "no such file or folder in the VM")
DENIED = ErrorCode("guest.denied", Kind.FORBIDDEN, "the VM's own permissions do not allow it")
IN_USE = ErrorCode("guest.in_use", Kind.CONFLICT, "the address is already in use inside the VM")
BUSY = ErrorCode("guest.busy", Kind.TOO_MANY, "the VM's agent has too many streams open")
BAD_REQUEST = ErrorCode("guest.bad_request", Kind.BAD_REQUEST, "the VM's agent rejects the request: {why}")
FAILED = ErrorCode("guest.failed", Kind.FAILED, "the VM's agent failed: {why}")

BY_WIRE: Mapping[str, ErrorCode] = {
    "refused": REFUSED, "unreachable": UNREACHABLE, "timeout": TIMEOUT, "auth": AUTH, "no_user": NO_USER,
    "no_shell": NO_SHELL, "no_file": NO_FILE, "denied": DENIED, "in_use": IN_USE, "busy": BUSY,
    "bad_request": BAD_REQUEST, "failed": FAILED,
}
"""Error codes as the agent spells them. What it says beyond them is `FAILED`."""

MAX_WHY = 200
"""Characters of a guest's own explanation that are kept."""


def from_wire(fields: Mapping[str, str]) -> Failure:
    """The declared failure for an agent's error reply. `fields` comes from a hostile guest."""
    error = BY_WIRE.get(fields.get("code", ""), FAILED)
    why = fields.get("message", "")[:MAX_WHY]
    return (error(why=why) if "why" in error.placeholders else error()).because(why)
