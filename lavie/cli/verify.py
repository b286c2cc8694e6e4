"""`lavie verify`: this machine's numbers beside recorded ones."""

import json as json_module
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lavie.cli.app import DONE, FAILED, UsageError, say

if TYPE_CHECKING:
    from lavie.verification import Result

_LOOSER = {
    "bfloat16": "networks in bfloat16 pass within 2 % (relative L2)",
    "float16": "networks in float16 pass within 0.5 % (relative L2)",
    "cuda": "networks on cuda pass within 4 times the bounds of the CPU, TF32 off",
}


def verify(
    *paths: Path,
    device: Literal["cpu", "cuda"] = "cpu",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
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
    json
        Print one JSON document instead of rows.
    """
    files = list(_files(paths))
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device cuda: torch {torch.__version__} sees no CUDA device here. Use cpu")
    from lavie.verification import verify_file

    width = max(len(file.stem) for file in files)
    if not json:
        note = _LOOSER.get(dtype) or _LOOSER.get(device)
        say(f"{note}; all else runs in float32 on the CPU" if note else "networks in float32 on the CPU")
        say(_columns(width, "name", "kind", "max error", "relative", "bound", "result"))
    results = []
    for file in files:
        results.append(verify_file(file, device, dtype))
        if not json:
            say(_row(results[-1], width))
    counts = Counter(result.status for result in results)
    if json:
        say(json_module.dumps(_document(results, counts, device, dtype), indent=2, allow_nan=False))
    else:
        told = ", ".join(f"{counts[status]} {status}" for status in ("pass", "fail", "unsupported", "error"))
        say(f"{len(results)} file{'s' if len(results) > 1 else ''} on {device} in {dtype}: {told}")
    return DONE if counts["pass"] == len(results) else FAILED


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


def _row(result: "Result", width: int) -> str:
    error, relative = ("-" if value is None else f"{value:.2e}" for value in (result.max_error, result.relative_error))
    outcome = f"{result.status}: {result.detail}" if result.detail else result.status
    return _columns(width, result.name, result.kind or "-", error, relative, result.bound or "-", outcome)


def _columns(width: int, name: str, kind: str, error: str, relative: str, bound: str, outcome: str) -> str:
    return f"{name:<{width}}  {kind:<13}  {error:>9}  {relative:>9}  {bound:<9}  {outcome}"


def _document(results: Sequence["Result"], counts: Counter[Any], device: str, dtype: str) -> dict[str, Any]:
    """Return everything as JSON can say it: numbers that are none become null."""
    rows = [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        for row in map(asdict, results)
    ]
    summary = {status: counts[status] for status in ("pass", "fail", "unsupported", "error")}
    return {"device": device, "dtype": dtype, "results": rows, "summary": summary}
