"""Turn the JSON of a run (`pytest benchmarks/ --benchmark-json=FILE`) into tables and a plot.

python -m benchmarks.report FILE.json [--against OLD.json] [--plot FILE.png]
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

NOISY = 0.15
"""Quartile spread of the yardstick above which a row is not to be trusted."""
Quartiles = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One case: what pytest-benchmark wrote of it."""

    group: str
    name: str
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """Read an entry of `benchmarks` in the JSON."""
        return cls(entry["group"] or "", entry["name"], entry["extra_info"])

    @property
    def case(self) -> str:
        """Return the label of the case, with its device unless that is the CPU."""
        label = str(self.facts.get("case", self.name))
        return label if self.facts.get("device", "cpu") == "cpu" else f"{label} ({self.facts['device']})"

    @property
    def noise(self) -> float:
        """Return the quartile spread of the yardstick, relative to its median."""
        return spread(self.facts["yardstick_seconds"]) if "yardstick_seconds" in self.facts else 0.0


def spread(values: Quartiles) -> float:
    """Return the distance of the quartiles relative to the median."""
    return (values["q3"] - values["q1"]) / values["median"]


def tables(rows: Sequence[Row], before: Sequence[Row] = ()) -> str:
    """Return one markdown table per group; with rows of an earlier run, their ratios beside the new ones."""
    earlier = {(row.group, row.name): row for row in before}
    groups = dict.fromkeys(row.group for row in rows)
    return "\n\n".join(_table(group, [row for row in rows if row.group == group], earlier) for group in groups)


def _table(group: str, rows: Sequence[Row], earlier: Mapping[tuple[str, str], Row]) -> str:
    facts = rows[0].facts
    title = ", ".join(str(facts[key]) for key in ("setting", "dtype") if key in facts)
    threads = f"{facts['threads']} thread{'s' * (facts['threads'] != 1)}" if "threads" in facts else ""
    columns = {name: [text(row) for row in rows] for name, text in _COLUMNS.items()}
    if earlier:
        columns["ratio before"] = [_ratio(earlier.get((row.group, row.name))) for row in rows]
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    body = [" | ".join(cells) for cells in zip(*shown.values(), strict=True)]
    lines = [" | ".join(shown), " | ".join("---" for _ in shown), *body]
    return "\n".join([f"### {group} ({title}, {threads})", "", *(f"| {line} |" for line in lines)])


def _ratio(row: Row | None) -> str:
    if row is None or "ratio" not in row.facts:
        return ""
    ratio = row.facts["ratio"]
    flag = " (noisy)" if row.noise > NOISY else ""
    return f"{ratio['median']:.2f} [{ratio['q1']:.2f}–{ratio['q3']:.2f}]{flag}"


def _seconds(row: Row) -> str:
    if "seconds" not in row.facts:
        return ""
    values = row.facts["seconds"]
    scale, unit = next(
        pair for pair in ((1, "s"), (1e3, "ms"), (1e6, "µs")) if values["median"] * pair[0] >= 1 or pair[1] == "µs"
    )
    median, low, high = (f"{values[key] * scale:.3g}" for key in ("median", "q1", "q3"))
    return f"{median} [{low}–{high}] {unit}"


def _speed(row: Row) -> str:
    if not {"gflop", "seconds"} <= row.facts.keys():
        return ""
    facts = row.facts
    speed = facts["gflop"] / facts["seconds"]["median"]
    yardstick = facts["yardstick_gflop"] / facts["yardstick_seconds"]["median"]
    return f"{speed:.3g} ({speed / yardstick:.0%})"


def _number(key: str, pattern: str, divisor: float = 1.0) -> Any:
    def text(row: Row) -> str:
        return format(row.facts[key] / divisor, pattern) if key in row.facts else ""

    return text


_COLUMNS = {
    "case": lambda row: row.case,
    "baseline": lambda row: str(row.facts.get("baseline", "")),
    "ratio": _ratio,
    "time": _seconds,
    "per step, µs": _number("step_seconds", ".3g", 1e-6),
    "GFLOP": _number("gflop", ".3g"),
    "baseline's GFLOP": _number("baseline_gflop", ".3g"),
    "GFLOP/s (of matrix product)": _speed,
    "M parameters": _number("parameters", ".4g", 1e6),
    "peak, MiB": _number("peak_bytes", ".1f", 2**20),
    "weights, MiB": _number("weight_bytes", ".1f", 2**20),
    "max error": _number("error", ".0e"),
}


def plot(rows: Iterable[Row], file: Path) -> None:
    """Draw the ratio of every case with its quartiles.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with_ratio = [row for row in rows if "ratio" in row.facts][::-1]
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.3 * len(with_ratio)), layout="constrained")
    for height, row in enumerate(with_ratio):
        ratio = row.facts["ratio"]
        axes.plot([ratio["q1"], ratio["q3"]], [height, height], color="tab:blue", linewidth=2)
        axes.plot(ratio["median"], height, marker="o", color="tab:blue")
    labels = [f"{row.group}: {row.case} / {row.facts.get('baseline', '')}" for row in with_ratio]
    axes.set_yticks(range(len(labels)), labels)
    axes.axvline(1.0, color="grey", linewidth=1)
    axes.set_xlabel("baseline / case (above 1: the case is faster, or needs less memory); median and quartiles")
    figure.savefig(file, dpi=120)


def machine(run: Mapping[str, Any]) -> str:
    """Return one line on where a run was made."""
    info = run["machine_info"]
    cpu = info.get("cpu", {})
    device = info.get("gpu") or cpu.get("brand_raw", info.get("processor", ""))
    commit = run.get("commit_info", {}).get("id", "")[:10] or "no commit"
    return f"{device}, {info.get('torch_cpu_capability', '')}, torch {info.get('torch', '')}, commit {commit}"


def main() -> None:
    """Print the tables of a run, and draw it if asked to."""
    parser = argparse.ArgumentParser(description="Turn the JSON of a benchmark run into tables and a plot.")
    parser.add_argument("file", type=Path, help="what --benchmark-json wrote")
    parser.add_argument("--against", type=Path, help="an earlier run, whose ratios are shown beside the new ones")
    parser.add_argument("--plot", type=Path, help="file of the plot; needs matplotlib")
    options = parser.parse_args()
    run = json.loads(options.file.read_text())
    rows = [Row.of(entry) for entry in run["benchmarks"]]
    before = json.loads(options.against.read_text())["benchmarks"] if options.against else []
    print(machine(run), tables(rows, [Row.of(entry) for entry in before]), sep="\n\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
