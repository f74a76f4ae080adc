"""Medians and tables, one way for every bench."""
from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """Figures of one run: what, unit, and each round's value."""

    title: str
    rows: list[tuple[str, str, list[float]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, unit: str, values: Sequence[float]) -> None:
        """One figure, measured several times."""
        self.rows.append((what, unit, list(values)))

    def median(self, what: str) -> float:
        """Median of a figure added before."""
        return statistics.median(next(values for name, _, values in self.rows if name == what))

    def text(self) -> str:
        """A table of median, minimum and maximum."""
        lines = [f"## {self.title}", ""]
        for what, unit, v in self.rows:
            lines.append(f"{what:58} {statistics.median(v):10.2f} {unit:8} [{min(v):.2f} - {max(v):.2f}] n={len(v)}")
        return "\n".join([*lines, *self.notes, ""])

    def save(self, folder: Path) -> None:
        """Keep the raw values beside the table."""
        folder.mkdir(parents=True, exist_ok=True)
        name = self.title.lower().replace(" ", "-").replace("/", "-")
        rows = [{"what": w, "unit": u, "values": v} for w, u, v in self.rows]
        (folder / f"{name}.json").write_text(json.dumps({"title": self.title, "rows": rows, "notes": self.notes}))
