"""How far our numbers are from recorded ones, and how far they may be."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lavie.errors import LavieError

Measure = Literal["exact", "absolute", "relative", "l2"]
"""`exact`: equal. `absolute`: the largest difference. `relative`: that, over the largest recorded value. `l2`: the norm
of the difference over the norm of what was recorded."""
_SHOWN = {"absolute": "abs", "relative": "rel", "l2": "L2"}
_HALF = {torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Bounds of networks in half precision, as norms. Random weights amplify rounding more than trained ones do."""
_OTHER_DEVICE = 4.0
"""How much wider bounds are off the CPU, whose kernels add up in other orders than the recording's."""


class MismatchError(LavieError):
    """Our numbers cannot even be compared with the recorded ones: other shapes, other timesteps."""


@dataclass(frozen=True)
class Bound:
    """What difference still passes."""

    limit: float
    measure: Measure

    def __str__(self) -> str:
        return "exact" if self.measure == "exact" else f"{self.limit:.0e} {_SHOWN[self.measure]}"


EXACT = Bound(0.0, "exact")


@dataclass(frozen=True)
class Place:
    """Where networks run, and in which precision."""

    device: torch.device
    dtype: torch.dtype

    def put(self, tensor: Tensor) -> Tensor:
        """Bring a tensor there; whole numbers stay whole."""
        return tensor.to(self.device, self.dtype) if tensor.is_floating_point() else tensor.to(self.device)

    def bound(self, strict: Bound) -> Bound:
        """Widen a bound that holds for float32 on a CPU to what this place can keep."""
        if self.dtype in _HALF:
            return Bound(_HALF[self.dtype], "l2")
        return strict if self.device.type == "cpu" else Bound(_OTHER_DEVICE * strict.limit, strict.measure)

    def __str__(self) -> str:
        name = f"networks on {self.device} in {str(self.dtype).removeprefix('torch.')}"
        if self.dtype in _HALF:
            return f"{name}, within {_HALF[self.dtype]:.0%} (relative L2)"
        return name if self.device.type == "cpu" else f"{name}, within {_OTHER_DEVICE:g} times the bounds of a CPU"


@dataclass(frozen=True, eq=False)
class Check:
    """One recorded tensor, and ours."""

    label: str
    found: Tensor
    expected: Tensor
    bound: Bound


@dataclass(frozen=True)
class Comparison:
    """What a file let us compare."""

    checks: list[Check] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Entries of the file that lavie has no counterpart for yet."""


@dataclass(frozen=True)
class Difference:
    """The outcome of one check."""

    label: str
    bound: Bound
    absolute: float
    relative: float
    excess: float
    """The bound's measure over its limit: passes up to 1, fails above it or if not a number."""

    @property
    def passes(self) -> bool:
        """Tell whether the difference is within the bound."""
        return self.excess <= 1


def measure(check: Check) -> Difference:
    """Measure one difference, in float64.

    Raises:
        MismatchError: if the shapes differ.
    """
    if check.found.shape != check.expected.shape:
        shapes = f"{tuple(check.found.shape)}, recorded was {tuple(check.expected.shape)}"
        raise MismatchError(f"{check.label} has the shape {shapes}")
    found, expected = check.found.detach().cpu().double(), check.expected.cpu().double()
    difference = found - expected
    absolute = difference.abs().max().item()
    relative = _ratio(absolute, expected.abs().max().item())
    size = {
        "exact": math.inf if absolute else absolute,
        "absolute": absolute,
        "relative": relative,
        "l2": _ratio(difference.norm().item(), expected.norm().item()),
    }[check.bound.measure]
    excess = size if check.bound.measure == "exact" else size / check.bound.limit
    return Difference(check.label, check.bound, absolute, relative, excess)


def worst(differences: list[Difference]) -> Difference:
    """Return the difference that exceeds its bound most, or comes nearest to it."""
    return max(differences, key=lambda difference: math.inf if math.isnan(difference.excess) else difference.excess)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.inf if part else 0.0
