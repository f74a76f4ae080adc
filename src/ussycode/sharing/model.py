"""Ports of one VM as people and edges see them."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ports:
    """The primary port and the ports that need no sign-in."""

    primary: int
    public: frozenset[int]

    @property
    def visibility(self) -> str:
        """`public` or `private`, of the primary port."""
        return "public" if self.primary in self.public else "private"


def resolve(chosen: dict[int, tuple[bool, bool]], default: int) -> Ports:
    """Ports from what was chosen; `default` is the image's own port."""
    primary = next((port for port, (first, _) in chosen.items() if first), default)
    return Ports(primary, frozenset(port for port, (_, public) in chosen.items() if public))
