"""`.pt` files from strangers: read by another process, under limits, and handed over as a safetensors file."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavie.errors import WeightsError

_SCRIPT = Path(__file__).with_name("unpickling.py")
_SECONDS, _BYTES_PER_SECOND = 60, 10_000_000


@dataclass(frozen=True)
class Unpickled:
    """What a `.pt` file held."""

    file: Path
    """A safetensors file with its tensors; gone after the `with` block, though tensors that were loaded stay good."""
    container: str
    """Key of the dict that the tensors were under, such as `ema`; empty if there was none."""
    left_over: dict[str, str]
    """Names of what else there was, and the type of each."""


@contextmanager
def unpickled(path: Path) -> Iterator[Unpickled]:
    """Read a `.pt` file in another process; nothing of it is unpickled in this one.

    That process has limits on memory and time, checks the zip directory first, knows only tensors and plain data
    (`weights_only`), and passes on dense tensors only. It needs about as much memory as the file is large, and as much
    room in the folder for temporary files.

    Raises:
        WeightsError: naming the file and the cause, whatever is wrong with it.
    """
    with tempfile.TemporaryDirectory(prefix="lavie-") as folder:
        output = Path(folder, "tensors.safetensors")
        found = _run(path, str(output), folder)
        yield Unpickled(output, str(found["container"]), dict(found["left_over"]))


def names_in(path: Path) -> dict[str, Any]:
    """Return what a `.pt` file holds without reading any data: `tensors` (dtype and shape), `container`, `left_over`.

    Another process reads it, as in `unpickled`; checksums are not compared.

    Raises:
        WeightsError: naming the file and the cause, whatever is wrong with it.
    """
    with tempfile.TemporaryDirectory(prefix="lavie-") as folder:
        return _run(path, "", folder)


def _run(path: Path, output: str, folder: str) -> dict[str, Any]:
    """Run the script in an empty folder and return its report."""
    report = Path(folder, "report.json")
    seconds = _SECONDS + path.stat().st_size // _BYTES_PER_SECOND
    search_path = json.dumps([each for each in sys.path if each and Path(each).is_absolute()])
    arguments = [str(path.resolve()), output, str(report), str(seconds), search_path]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-W", "ignore", str(_SCRIPT), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            timeout=10 * seconds,
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{path} cannot be read: reading it took longer than {10 * seconds} seconds") from None
    found = _report(report)
    if done.returncode != 0 or "error" in found:
        cause = found.get("error") or f"the process that read it ended with code {done.returncode}"
        raise WeightsError(f"{path} cannot be read: {cause}")
    return found


def _report(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"error": ""}
    return found if isinstance(found, dict) else {"error": ""}
