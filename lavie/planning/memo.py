"""Networks are called thousands of times with tensors of the same shapes: the first call tells what all need."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lavie.planning.meter import Meter, Usage

DOORS = ("forward", "encode", "decode")
"""Methods by which stages call their networks."""


@dataclass(frozen=True)
class Call:
    """What a call needed beyond what was there before, and the tensor that came out of it."""

    usage: Usage
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@final
class Memo:
    """What calls need, by what is called and the shapes that it is called with; serves many dry runs."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, Call] = {}

    def once(self, meter: Meter, name: Hashable, inputs: object, run: Callable[[], Any]) -> Any:
        """Return what `run` makes; the second time and later, a tensor like it, without running.

        What can depend on more than shapes runs every time.
        """
        shapes = _signature(inputs)
        if shapes is None:
            return run()
        if (known := self._calls.get((name, shapes))) is not None:
            meter.add(known.usage)
            return torch.empty_strided(known.size, known.stride, dtype=known.dtype, device="meta")
        with meter.section() as usage:
            out = run()
        if isinstance(out, Tensor) and _is_new(out, inputs):
            self._calls[name, shapes] = Call(usage, tuple(out.shape), tuple(out.stride()), out.dtype)
        return out

    def watch(self, meter: Meter, network: nn.Module, name: Hashable) -> None:
        """Let a network, which nobody else uses, run once for every set of shapes."""
        for door in DOORS:
            if (run := getattr(network, door, None)) is not None:
                setattr(network, door, partial(self._call, meter, (name, door), run))

    def _call(self, meter: Meter, name: Hashable, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.once(meter, name, (args, kwargs), lambda: run(*args, **kwargs))


def _is_new(out: Tensor, inputs: object) -> bool:
    """Tell whether an output is a tensor of its own, and not a part or a view of something else."""
    storage = out.untyped_storage()
    taken = (each.untyped_storage() is storage for each in tree_leaves(inputs) if isinstance(each, Tensor))
    return storage.nbytes() == out.numel() * out.element_size() and not any(taken)


def _signature(value: Any) -> Hashable | None:
    """Return what a call's cost depends on; None where that cannot be told."""
    if isinstance(value, Tensor):
        return tuple(value.shape), tuple(value.stride()), value.dtype
    if value is None or isinstance(value, bool | int | float | str | frozenset):
        return (value,)
    if isinstance(value, torch.Generator):
        return ("generator",)
    if is_dataclass(value):
        return _signature([getattr(value, each.name) for each in fields(value)])
    if isinstance(value, Mapping):
        return _signature([*value.keys(), *value.values()])
    if isinstance(value, list | tuple):
        parts = [_signature(part) for part in value]
        return None if None in parts else tuple(parts)
    return None


__all__ = ["Memo"]
