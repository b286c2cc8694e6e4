"""Running averages of weights."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def decay_at(decay: float, step: int) -> float:
    """Return the decay of update `step` (from 0): small at first, so that the start is soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


class Average:
    """Exponential moving averages of the weights of some modules, kept in copies of those modules."""

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.modules = {name: copy.deepcopy(module).eval().requires_grad_(False) for name, module in modules.items()}
        self._averages, self._floats, self._others = [], [], []
        for name, module in modules.items():
            for average, value in zip(self.modules[name].state_dict().values(), _values(module), strict=True):
                if value.is_floating_point():
                    self._averages.append(average)
                    self._floats.append(value)
                else:
                    self._others.append((average, value))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the present weights; buffers that are no floats are copied."""
        torch._foreach_lerp_(self._averages, self._floats, 1 - decay_at(self.decay, step))
        for average, value in self._others:
            average.copy_(value)


def _values(module: nn.Module) -> list[Tensor]:
    return list(module.state_dict().values())
