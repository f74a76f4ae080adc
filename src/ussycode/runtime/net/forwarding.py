"""IPv4 forwarding of the host: switched on when needed, and off again only if we switched it on."""
from __future__ import annotations

from pathlib import Path

SWITCH = Path("/proc/sys/net/ipv4/ip_forward")


def switch_on(run_root: Path) -> None:
    """Let the host forward; remembers in `run_root` that it did not before. Root only; idempotent."""
    if SWITCH.read_text().strip() == "1":
        return
    (run_root / "ip_forward_was_off").touch()
    SWITCH.write_text("1")


def switch_back(run_root: Path, still_needed: bool) -> None:
    """Undo `switch_on` unless another instance on this host still needs it."""
    note = run_root / "ip_forward_was_off"
    if still_needed or not note.exists():
        return
    SWITCH.write_text("0")
    note.unlink()
