"""What containers cannot do, as sentences."""
from __future__ import annotations

from ussycode.base.errors import ErrorCode, Kind

UNSUPPORTED = ErrorCode(
    "container.unsupported", Kind.FAILED, "{what} is not possible for a container: it shares the host's kernel",
    hint="make one with a kernel of its own: new --isolation vm",
)
FOREIGN_DISK = ErrorCode(
    "container.foreign_disk", Kind.FAILED,
    "a container cannot be made of {what}: the host's own kernel would have to read a disk that a guest wrote",
    hint="make it as a VM: --isolation vm",
)
NO_PLACE = ErrorCode(
    "container.no_place", Kind.UNAVAILABLE, "this node has no place for another container: it holds {most} at most",
    hint="remove one, or make a VM: new --isolation vm",
)
