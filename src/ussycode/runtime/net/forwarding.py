"""Forwarding of the host: switched on when needed, and off again only if we switched it on."""
from __future__ import annotations

from pathlib import Path

SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
SWITCH6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")


def switch_on(run_root: Path) -> None:
    """Let the host forward IPv4; remembers in `run_root` that it did not before. Root only; idempotent."""
    if _is_on(SWITCH):
        return
    (run_root / "ip_forward_was_off").touch()
    SWITCH.write_text("1")


def switch_on6(run_root: Path) -> None:
    """Let the host forward IPv6, and go on listening to its own routers, which a forwarding host would not."""
    if _is_on(SWITCH6):
        return
    # Interfaces that learn their route from advertisements would lose it with the first expiry after the switch.
    learning = [path for path in SWITCH6.parent.parent.glob("*/accept_ra") if path.read_text().strip() == "1"]
    (run_root / "ip6_forward_was_off").write_text("\n".join(path.parent.name for path in learning))
    for path in learning:
        path.write_text("2")
    SWITCH6.write_text("1")


def switch_back(run_root: Path, still_needed: bool) -> None:
    """Undo both unless another instance on this host still needs them."""
    if still_needed:
        return
    note, note6 = run_root / "ip_forward_was_off", run_root / "ip6_forward_was_off"
    if note.exists():
        SWITCH.write_text("0")
        note.unlink()
    if note6.exists():
        _off6(note6.read_text().splitlines())
        note6.unlink()


def is_on(*, ipv6: bool) -> bool:
    """Whether the host forwards what guests need."""
    return _is_on(SWITCH) and (not ipv6 or _is_on(SWITCH6))


def _off6(learning: list[str]) -> None:
    SWITCH6.write_text("0")
    for name in learning:
        path = SWITCH6.parent.parent / name / "accept_ra"
        if "/" not in name and path.exists() and path.read_text().strip() == "2":
            path.write_text("1")


def _is_on(switch: Path) -> bool:
    return not switch.exists() or switch.read_text().strip() == "1"
