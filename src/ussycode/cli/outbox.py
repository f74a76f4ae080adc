"""`ussycode outbox`: the platform's mails, for a host without a relay and for finding out what went wrong."""
from __future__ import annotations

import argparse
import json

from ussycode.base.clock import SystemClock, rfc3339
from ussycode.base.db import Database
from ussycode.base.errors import ErrorCode, Kind, printable
from ussycode.config import Config
from ussycode.mail import store

NO_DATABASE = ErrorCode("outbox.none", Kind.NOT_FOUND, "there is no platform in {data}", hint="ussycode up makes one")


def outbox(config: Config, asked: argparse.Namespace) -> int:
    """Print the mails that are kept, oldest first, whole or as JSON."""
    path = config.data_dir / "control" / "ussycode.db"
    if not path.exists():
        raise NO_DATABASE(data=config.data_dir)
    db = Database(path, SystemClock())
    try:
        found = db.read_now(store.every)
    finally:
        db.close()
    if asked.json:
        print(json.dumps([vars(m) | {"created_at": rfc3339(m.created_at)} for m in found]))
        return 0
    for mail in found:
        error = f" ({printable(mail.error)})" if mail.error else ""
        print(f"--- {mail.id}  {rfc3339(mail.created_at)}  {mail.state.value}{error}")
        print(f"To: {mail.to}\nSubject: {mail.subject}\n")
        print("".join(c for c in mail.body if c.isprintable() or c == "\n"))
    return 0
