"""Building on the meta device: real modules with shapes, without memory for weights."""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import nn

from lavie.building import build, parts, stands_alone
from lavie.plugins import kind_class
from lavie.registry import Registry
from lavie.spec import Spec


def meta() -> AbstractContextManager[object]:
    """Return a context in which new tensors have shapes but no memory."""
    return torch.device("meta")


def networks(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """Yield the outermost specs in a spec that build a network by themselves, with their paths."""
    found: list[str] = []
    for path, part in parts(spec):
        inside = any(path == outer or path.startswith((f"{outer}.", f"{outer}[")) or not outer for outer in found)
        if not inside and _builds_network(part):
            found.append(path)
            yield path, part


def build_on_meta(spec: Spec, registry: Registry) -> nn.Module:
    """Build one network without memory.

    Raises:
        SpecError: with the path of whatever does not fit.
    """
    with meta():
        built = build(spec, registry)
    assert isinstance(built, nn.Module)
    return built


def num_parameters(network: nn.Module) -> int:
    """Count learned numbers, shared ones once."""
    return sum(parameter.numel() for parameter in network.parameters())


def _builds_network(spec: Spec) -> bool:
    if not spec.kind or not stands_alone(spec):
        return False
    returned = inspect.signature(kind_class(type(spec)).build).return_annotation  # type: ignore[attr-defined]
    return inspect.isclass(returned) and issubclass(returned, nn.Module)
