"""Ports 3000-9999 as listeners of their own: the port that was connected to is the VM's port, whatever Host says."""
from __future__ import annotations

from ussycode.doors.edge.edge import Edge
from ussycode.doors.edge.fields import Refused
from ussycode.doors.edge.head import Request
from ussycode.doors.edge.visitor import VisitorConnection


class AlternateConnection(VisitorConnection):
    """A connection to one of them. Every request must name it; the decision is made for it and no other."""

    __slots__ = ()

    def __init__(self, edge: Edge, port: int) -> None:
        super().__init__(edge)
        self._listener = port

    def _read(self, head: bytes) -> Request:
        request = super()._read(head)
        require_named(request, self._listener)
        return request


def require_named(request: Request, port: int) -> None:
    """Refused unless the request's Host names the port that the visitor is connected to: a browser's always does,
    and who writes another one wants to be judged by one port and served by another."""
    if request.host != b"%b:%d" % (request.hostname, port):
        raise Refused(421, "the Host header names another port than this one")
