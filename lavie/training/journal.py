"""What a run writes down as it goes: one JSON object a line."""

import json
import math
import statistics
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavie.weights.files import write_text

SPIKE_DEVIATIONS = 6
WINDOW = 128


class Journal:
    """The rows of `metrics.jsonl`; each has `total`, the number of steps done in the whole run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows; a last line that a kill cut short is left out."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def cut(self, total: int) -> None:
        """Drop the rows of steps that are about to be done again, and what a kill cut short."""
        kept = "".join(json.dumps(row) + "\n" for row in self.rows() if row["total"] <= total)
        if self.path.exists() and self.path.read_text(encoding="utf-8") != kept:
            write_text(self.path, kept)

    def add(self, **row: Any) -> None:
        """Append one row."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class Gauge:
    """Running means since the last row, and the watch on gradient norms."""

    def __init__(self) -> None:
        self.looked: Mapping[str, float] = {}
        self._sums: dict[str, float] = {}
        self._count = 0
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._since = time.monotonic()

    def add(self, values: Mapping[str, float]) -> None:
        """Count in the numbers of one step."""
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def spike(self, norm: float) -> str:
        """Say how far a gradient norm is above those before it, if it is too far, and remember it if it is not."""
        if len(self._norms) == WINDOW:
            mean, deviation = statistics.fmean(self._norms), statistics.pstdev(self._norms)
            if norm > mean + SPIKE_DEVIATIONS * deviation and norm > 2 * mean:
                return f"{norm / mean:.0f} times the mean of the last {WINDOW}"
        self._norms.append(norm)
        return ""

    def row(self) -> dict[str, float]:
        """Return the means since the last call, and the seconds."""
        now = time.monotonic()
        row = {name: value / self._count for name, value in self._sums.items()}
        row["seconds"] = round(now - self._since, 3)
        self._sums, self._count, self._since = {}, 0, now
        return row

    def show(self, measured: Mapping[str, float], seconds: float) -> None:
        """Remember measurements for `text`, and leave the time they took out of the next row."""
        self.looked = measured
        self._since += seconds

    def text(self) -> str:
        """Return the latest measurements in short."""
        return "  ".join(f"{name} {value:.3g}" for name, value in self.looked.items() if math.isfinite(value))
