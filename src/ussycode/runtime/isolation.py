"""What may stand between a guest and the host: said once for commands and drivers."""
from __future__ import annotations

from ussycode.base.errors import ErrorCode, Kind

NOT_ENABLED = ErrorCode(
    "container.not_enabled", Kind.FORBIDDEN, "isolation container is not enabled on this node",
    hint="the operator sets containers = true; without --isolation you get a VM",
)
