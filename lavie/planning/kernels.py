"""What kernels do that the shapes of their outputs do not show: which one is chosen, and what it needs in passing.

Torch itself is asked which one it would choose, with real tensors of the same shapes that nobody ever writes to.
"""

import functools
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

aten = torch.ops.aten


@final
class Kernels:
    """The kernels of one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._is_fused = functools.cache(self._ask)

    def is_fused(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *args: Any, **kwargs: Any
    ) -> bool:
        """Tell whether attention runs in a kernel that never holds all weights at once."""
        shapes = tuple((tuple(x.shape), tuple(x.stride()), x.dtype) for x in (query, key, value, mask) if x is not None)
        return self._is_fused(shapes, args, tuple(sorted(kwargs.items())))

    def _ask(self, shapes: tuple[Any, ...], args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> bool:
        tensors = [torch.empty_strided(size, stride, dtype=dtype, device=self.device) for size, stride, dtype in shapes]
        mask = tensors[3] if len(tensors) > 3 else None
        choose: Any = torch._fused_sdp_choice
        choice = choose(*tensors[:3], mask, *args, **dict(kwargs))
        return bool(choice != SDPBackend.MATH.value)

    def laid_out(self, out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return the output of a convolution in the order in which the device's kernels leave it."""
        if out.ndim == 4 and any(each.is_contiguous(memory_format=torch.channels_last) for each in (x, weight)):
            return out.contiguous(memory_format=torch.channels_last)
        return out

    def workspace(self, packet: Any, args: tuple[Any, ...]) -> int:
        """Return the bytes that a kernel holds only while it runs, as measured on the CPU (docs/memory.md).

        Convolutions copy their weights into another order, and inputs that are not in channels-last order as well;
        layer norm copies inputs that are not in one piece.
        """
        if self.device.type != "cpu":
            return 0
        if packet is aten.convolution:
            x, weight = args[:2]
            copied = 0 if x.is_contiguous(memory_format=torch.channels_last) else x.nbytes
            return weight.nbytes + copied if weight.ndim == 4 and weight.shape[-2:] != (1, 1) else 0
        if packet is aten.native_layer_norm and not args[0].is_contiguous():
            return args[0].nbytes
        return 0
