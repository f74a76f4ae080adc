"""What the supervisor tells the control process at its start."""
from __future__ import annotations

import msgspec


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor tells the control process; sockets are inherited descriptors that already listen."""

    config: dict[str, str]
    accel: str
    admin_keys: list[str]
    edge_uid: int
    ssh_fds: list[int]
    web_fd: int
    feed_fd: int
    metrics_fd: int
    edge_sockets: str
    """Folder with a unix socket of each edge that tells its figures."""
    signer_certificate: str = ""
    """Intermediate that signs for domains of owners, PEM; empty where somebody else ends TLS."""
    signer_key: str = ""
    acme_root: str = ""
    """Roots that the ACME server is trusted by, PEM; empty for those of this host."""
    certificate_secret: str = ""
    """Who knows it, the terminator in front, is handed certificates with their keys; empty for nobody."""
    dns_udp_fds: list[int] = []
    """Bound sockets of the name server for our own zone; none where it is not wanted."""
    dns_tcp_fds: list[int] = []
    mail_fds: list[int] = []
    """Listening sockets for mail to VMs; none where it is not wanted."""
    mail_certificate: str = ""
    mail_key: str = ""
    """PEM for STARTTLS: the operator's own, or with `mail_mints` a signer for the base domain."""
    mail_mints: bool = False
