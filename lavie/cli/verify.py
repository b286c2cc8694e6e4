"""`lavie verify`: this machine's numbers beside recorded ones."""

import json as json_module
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lavie.cli.app import DONE, FAILED, UsageError, say

if TYPE_CHECKING:
    from lavie.verification import Result

STATUSES = ("pass", "fail", "unsupported", "error")


def verify(
    *paths: Path,
    device: Literal["cpu", "cuda"] = "cpu",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    attention: str | None = None,
    json: bool = False,
) -> int:
    """Compare this machine's numbers with recorded ones.

    Each file holds the weights of a small network with inputs and outputs, the steps of a sampler, or tables, as the
    official implementation computed them. Prints a row for each file: largest error, that error over the largest
    recorded value, the bound, and how it went. Exit code 1 if anything is not a pass.

    Parameters
    ----------
    paths
        Files in the format of tests/golden/README.md, or folders of them.
    device
        Where networks run.
    dtype
        Precision of networks; half precision has bounds of its own.
    attention
        Kernel that computes attention: sdpa, math, xformers. [default: sdpa, or what LAVIE_ATTENTION says]
    json
        Print one JSON document instead of rows.
    """
    files = list(_files(paths))
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device cuda: torch {torch.__version__} sees no CUDA device here. Use cpu")
    from lavie.blocks.kernels import use_attention
    from lavie.verification import conditions, verify_file

    with use_attention(attention, device, getattr(torch, dtype)):
        results = (verify_file(file, device, dtype) for file in files)
        heading = conditions(device, dtype)
        counts = _print_json(results, heading) if json else _print_rows(results, heading, [file.stem for file in files])
    return DONE if counts["pass"] == len(files) else FAILED


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    if not paths:
        raise UsageError("name at least one file of recorded numbers, or a folder of them")
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        found = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path}: no .safetensors file in this folder")
        yield from found


def _print_rows(results: Iterable["Result"], heading: str, names: Sequence[str]) -> Counter[str]:
    """Print each row as soon as it is known, and a summary last."""
    width = max(map(len, names))
    say(heading)
    say(_columns(width, "name", "kind", "max error", "relative", "bound", "result"))
    counts: Counter[str] = Counter()
    for result in results:
        numbers = [f"{x:.2e}" if x is not None else "-" for x in (result.max_error, result.relative_error)]
        outcome = f"{result.status}: {result.detail}" if result.detail else result.status
        say(_columns(width, result.name, result.kind or "-", *numbers, result.bound or "-", outcome))
        counts[result.status] += 1
    told = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    say(f"{len(names)} file{'s' if len(names) > 1 else ''}: {told}")
    return counts


def _columns(width: int, name: str, *cells: str) -> str:
    return "  ".join((f"{name:<{width}}", "{:<13}  {:>9}  {:>9}  {:<9}  {}".format(*cells)))


def _print_json(results: Iterable["Result"], heading: str) -> Counter[str]:
    rows = list(results)
    counts: Counter[str] = Counter(result.status for result in rows)
    document = {
        "conditions": heading,
        "results": [{key: _finite(value) for key, value in asdict(row).items()} for row in rows],
        "summary": {status: counts[status] for status in STATUSES},
    }
    say(json_module.dumps(document, indent=2, allow_nan=False))
    return counts


def _finite(value: Any) -> Any:
    """Return null for numbers that JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
