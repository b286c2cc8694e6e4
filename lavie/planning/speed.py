"""How fast a device is, by a trial of a second: from operations to seconds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from lavie.planning.meter import Kind

LONG_ENOUGH = 0.05
"""Seconds that a trial takes at least; shorter ones measure the clock."""


@dataclass(frozen=True)
class Rates:
    """Operations, or bytes, that a device gets done in a second."""

    per_second: Mapping[Kind, float]

    def seconds(self, work: Mapping[Kind, int]) -> float:
        """Return how long work takes at these rates: an estimate, for shapes differ and others use the machine too."""
        return sum(amount / self.per_second[kind] for kind, amount in work.items())


@torch.inference_mode()
def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Run a convolution, a matrix product, an attention and a sum, as large as those of networks, a few times each."""
    cl = torch.channels_last
    image = torch.ones(8, 128, 32, 48, device=device, dtype=dtype).contiguous(memory_format=cl)
    kernel = torch.ones(128, 128, 3, 3, device=device, dtype=dtype).contiguous(memory_format=cl)
    tokens, matrix = (torch.ones(side, 640, device=device, dtype=dtype) for side in (2560, 640))
    heads = torch.ones(2, 8, 1024, 40, device=device, dtype=dtype)
    numbers = torch.ones(4_000_000, device=device, dtype=dtype)
    trials: dict[Kind, tuple[int, Callable[[], object]]] = {
        "convolution": (2 * 9 * 128 * image.numel(), lambda: F.conv2d(image, kernel, padding=1)),
        "product": (2 * 640 * tokens.numel(), lambda: F.linear(tokens, matrix)),
        "attention": (4 * 1024 * heads.numel(), lambda: F.scaled_dot_product_attention(heads, heads, heads)),
        "moved": (3 * numbers.numel() * numbers.element_size(), lambda: numbers + numbers),
    }
    return Rates({kind: amount / _fastest(run, device) for kind, (amount, run) in trials.items()})


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the fastest run, the first left out."""
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < LONG_ENOUGH:
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - start)
    return max(min(times), 1e-9)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


__all__ = ["Rates", "measure_rates"]
