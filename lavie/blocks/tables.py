"""Small constant tensors that layers look up in every forward pass."""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor


@final
class FrameTable:
    """A constant that depends on the number of frames alone: computed once, and kept on every device that asks.

    It is computed on the CPU, so that the last bit of a logarithm is the same everywhere, and copied: a copy in every
    forward pass would make a GPU wait each time. No buffer, since a network built without memory could not fill it.
    """

    def __init__(self, compute: Callable[[int], Tensor]) -> None:
        self._compute = compute
        self._kept: dict[tuple[int, torch.device], Tensor] = {}

    def __call__(self, num_frames: int, device: torch.device) -> Tensor:
        """Return the table, not to be written to."""
        if torch.compiler.is_compiling():
            return self._compute(num_frames).to(device)
        table = self._kept.get((num_frames, device))
        if table is None:
            with torch.inference_mode(False), torch.device("cpu"):
                table = self._compute(num_frames).to(device)
            if type(table) is Tensor:  # and not a tracer's stand-in, which must not outlive the trace
                self._kept[num_frames, device] = table
        return table
