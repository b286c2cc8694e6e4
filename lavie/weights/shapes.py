"""Names and shapes of the tensors of networks, which take no memory to find out, but time."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import nn

from lavie.spec import Spec


@lru_cache(maxsize=32)
def shapes_of(spec: Spec) -> Mapping[str, tuple[int, ...]]:
    """Return name and shape of every tensor of the network that a spec builds."""
    with torch.device("meta"):
        network: nn.Module = spec.build()  # type: ignore[attr-defined]
    return MappingProxyType({key: tuple(tensor.shape) for key, tensor in network.state_dict().items()})
