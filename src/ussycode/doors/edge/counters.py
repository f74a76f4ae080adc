"""Plain counters of one edge process, in the Prometheus text format."""
from __future__ import annotations

from collections import defaultdict


class Counters:
    """Counted without locks: one process, one thread."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[int, str], int] = defaultdict(int)
        """By status and reason."""
        self.values: defaultdict[str, int] = defaultdict(int)

    def add(self, name: str, amount: int = 1) -> None:
        """Count `amount` more of `name`."""
        self.values[name] += amount

    def text(self, gauges: dict[str, float]) -> bytes:
        """Everything counted, with `gauges` as they are now."""
        lines = ["# TYPE ussycode_edge_requests_total counter"]
        for (status, reason), count in sorted(self.requests.items()):
            lines.append(f'ussycode_edge_requests_total{{status="{status}",reason="{reason}"}} {count}')
        for name, count in sorted(self.values.items()):
            lines += [f"# TYPE ussycode_edge_{name}_total counter", f"ussycode_edge_{name}_total {count}"]
        for name, value in sorted(gauges.items()):
            lines += [f"# TYPE ussycode_edge_{name} gauge", f"ussycode_edge_{name} {value:g}"]
        return ("\n".join(lines) + "\n").encode()
