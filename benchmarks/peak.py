"""Peak memory of a forward pass in a fresh process: two measurements in one process would share freed pages.

`Peaks` starts one process that imports everything and then forks a child for each measurement; a child builds the
network, warms up on two small frames, and measures what one forward pass adds to that.
"""

import ctypes
import dataclasses
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from benchmarks.settings import SETTINGS, Shape
from benchmarks.subjects import build_denoiser, denoiser_spec, inputs
from lavie import installed

ROOT = Path(__file__).parent.parent
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What resets VmHWM when written to `clear_refs` (man 5 proc)."""


class UnmeasurableError(Exception):
    """A platform that does not tell the peak memory, or a child that failed."""


@dataclass(frozen=True)
class Subject:
    """The denoiser of a setting with one temporal layer, and where it runs."""

    setting: str
    temporal: dict[str, Any]
    device: str
    dtype: str
    threads: int


class Peaks:
    """A process that measures subjects, each in a child of its own."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._server is not None:
            self._server.communicate()

    def measure(self, subject: Subject) -> dict[str, float]:
        """Return `peak` above the memory after construction, and that of the `weights`, in bytes.

        Raises:
            UnmeasurableError: with the reason.
        """
        if not CLEAR_REFS.exists():
            raise UnmeasurableError("peak memory is read from Linux's /proc")
        if self._server is None:
            path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
            command = [sys.executable, "-m", "benchmarks.peak"]
            environment = {**os.environ, "PYTHONPATH": path}
            self._server = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(dataclasses.asdict(subject)) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline() or '{"failed": "the measuring process died"}')
        if "failed" in answer:
            raise UnmeasurableError(answer["failed"])
        return answer


def serve() -> None:
    """Answer every line of standard input, a subject, with a line on standard output."""
    installed()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_in_child(Subject(**json.loads(line)))) + "\n")
        sys.stdout.flush()


def _in_child(subject: Subject) -> dict[str, float] | dict[str, str]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer: dict[str, Any] = forward_peak(subject)
        except BaseException as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"failed": "the child was killed, perhaps for want of memory"}


def forward_peak(subject: Subject) -> dict[str, float]:
    """Build the network, warm up, and return what one forward pass needs on top."""
    setting = SETTINGS[subject.setting]
    torch.set_num_threads(subject.threads)
    device, dtype = torch.device(subject.device), getattr(torch, subject.dtype)
    network = build_denoiser(denoiser_spec(setting, subject.temporal, installed())).to(device, dtype)
    weights = sum(each.numel() * each.element_size() for each in network.state_dict().values())
    side = 2 ** len(setting.widths.channels)  # two by two positions in the coarsest level
    warmup = inputs(dataclasses.replace(setting, latent=Shape(2, side, side))).to(device, dtype)
    real = inputs(setting).to(device, dtype)
    with torch.inference_mode():
        network(warmup.noisy, warmup.timestep, warmup.cond)
        before = _reset(device)
        result = network(real.noisy, real.timestep, real.cond)
        peak = _peak(device)
    assert result.isfinite().all()
    return {"peak": float(max(peak - before, 0)), "weights": float(weights)}


def _reset(device: torch.device) -> int:
    """Forget the peak so far and return the bytes in use."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(AttributeError, OSError):  # other C libraries than glibc have no such call
        ctypes.CDLL(None).malloc_trim(0)
    CLEAR_REFS.write_text(RESET_PEAK)
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    serve()
