"""What OpenSSH's sftp and scp start in place of ssh: its standard streams become an SFTP stream to an agent.

GUEST_STREAM holds host, port and secret.
"""
from __future__ import annotations

import os
import socket
import threading

from ussycode.runtime.guest import protocol


def copy_input(conn: socket.socket) -> None:
    while data := os.read(0, 1 << 18):
        conn.sendall(data)
    conn.shutdown(socket.SHUT_WR)


def main() -> None:
    host, port, secret = os.environ["GUEST_STREAM"].split()
    conn = socket.create_connection((host, int(port)))
    conn.sendall(protocol.encode_hello(secret, (("verb", "sftp"),)))
    head = conn.recv(protocol.REPLY_HEAD, socket.MSG_WAITALL)
    assert head == b"OK\0\0\0\0", head
    threading.Thread(target=copy_input, args=(conn,), daemon=True).start()
    while data := conn.recv(1 << 18):
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]


main()
