"""Sockets that only guests can reach: bound to the gateway address, which exists on taps alone."""
from __future__ import annotations

import socket

from ussycode.runtime.instance import GATEWAY

_IP_FREEBIND = 15
_BACKLOG = 128


def tcp(port: int) -> socket.socket:
    """A listening TCP socket on the guests' gateway address; needs no privilege and no tap yet."""
    facing = _bound(socket.SOCK_STREAM, port)
    facing.listen(_BACKLOG)
    return facing


def udp(port: int) -> socket.socket:
    """A UDP socket on the guests' gateway address."""
    return _bound(socket.SOCK_DGRAM, port)


def _bound(kind: socket.SocketKind, port: int) -> socket.socket:
    facing = socket.socket(socket.AF_INET, kind)
    facing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    facing.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    facing.setblocking(False)
    facing.bind((GATEWAY, port))
    return facing
