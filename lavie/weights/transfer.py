"""Starting from a network that is nearly the same: what has the same name and shape is taken, the rest stays new."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lavie.errors import WeightsError
from lavie.weights.files import fill, prefixed
from lavie.weights.stored import read_tensors


@dataclass(frozen=True)
class Transfer:
    """What became of the tensors of a network that started from another's."""

    fresh: tuple[str, ...]
    """New tensors, which the other network does not have, or not in this shape."""
    unused: tuple[str, ...]
    """Tensors of the other network that found no place."""
    widened: tuple[str, ...]
    """Kernels that got further input channels, all zero: the network ignores those inputs at first."""


def transfer(modules: Mapping[str, nn.Module], folder: Path) -> Transfer:
    """Load what fits of a folder of weights or a checkpoint of training into modules.

    Raises:
        WeightsError: if the folder is damaged, or less than half of the tensors fit: that is another network.
    """
    tensors = {name: value for name, value in read_tensors(folder).items() if name.split(".", 1)[0] in modules}
    state = prefixed(modules)
    taken: dict[str, Tensor] = {}
    widened = []
    for name, own in state.items():
        other = tensors.get(name)
        if other is not None and other.shape == own.shape:
            taken[name] = other
        elif other is not None and _is_narrower(other, own):
            taken[name] = torch.cat(
                (other, other.new_zeros(len(other), own.shape[1] - other.shape[1], *own.shape[2:])), 1
            )
            widened.append(name)
    if 2 * len(taken) < len(state):
        raise WeightsError(f"{folder}: only {len(taken)} of {len(state)} tensors fit the model; it is another network")
    for prefix, module in modules.items():
        own_state = {name: taken.get(f"{prefix}.{name}", value) for name, value in module.state_dict().items()}
        fill(module, own_state)
    fresh = tuple(name for name in state if name not in taken)
    return Transfer(fresh, tuple(name for name in tensors if name not in taken), tuple(widened))


def _is_narrower(other: Tensor, own: Tensor) -> bool:
    """Tell whether a convolution kernel has the same outputs and size, but fewer inputs."""
    return other.ndim == own.ndim >= 3 and other.shape[1] < own.shape[1] and _rest(other) == _rest(own)


def _rest(kernel: Tensor) -> tuple[int, ...]:
    return (kernel.shape[0], *kernel.shape[2:])
