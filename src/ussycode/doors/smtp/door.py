"""The SMTP door: listening sockets, and what all its connections share."""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence

from ussycode.base.networks import Clients
from ussycode.doors.smtp.connection import Connection, Shared
from ussycode.doors.smtp.limits import MAILS_PER_HOUR, Admission, Held, Patience
from ussycode.doors.smtp.tls import Certificate
from ussycode.inbox.ops import Inbox
from ussycode.ports import App
from ussycode.tokens.rate import Buckets


class SmtpDoor:
    """Takes mail for VMs."""

    def __init__(self, app: App, certificate: Certificate, patience: Patience | None = None) -> None:
        # What clients say is no business of a log, and no format of ours either.
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        paces = Buckets(app.clock, MAILS_PER_HOUR / 3600, MAILS_PER_HOUR / 10)
        self.shared = Shared(
            app, Inbox(app), certificate, patience or Patience(), Clients(app.config.limit_exempt), paces, Admission(),
            Held(),
        )

    async def serve(self, listening: Sequence[socket.socket]) -> None:
        """Serve until cancelled; what is under way ends then, and its sender sends it again."""
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(lambda: Connection(self.shared), sock=sock) for sock in listening]
        try:
            await asyncio.Event().wait()
        finally:
            for server in servers:
                server.close()
            for connection in list(self.shared.connections):
                connection.end()
