"""AdamW with warm-up and cosine decay, its parameter groups, and its state as tensors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lavie.blocks.base import TemporalLayer
from lavie.errors import Fault, SpecError, WeightsError
from lavie.spec import Fraction, Positive, Spec

_MOMENTS = ("exp_avg", "exp_avg_sq")


class OptimizerSpec(Spec):
    """AdamW (arXiv 1711.05101) with warm-up and cosine decay of the learning rate."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Highest learning rate."""
    temporal_scale: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Factor on the learning rate of temporal layers."""
    weight_decay: Fraction = 0.01
    """Decoupled weight decay; biases and norms have none."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Decay of the running means of the gradient and of its square."""
    warmup_steps: Annotated[int, Field(ge=0, le=100_000_000)] = 100
    """Steps over which the learning rate rises from 0."""
    final_fraction: Fraction = 0.01
    """Learning rate at the end, as a fraction of the highest."""
    gradient_clip: Positive = 1.0
    """Norm above which gradients are scaled down."""


def learning_rate_factor(spec: OptimizerSpec, step: int, num_steps: int) -> float:
    """Return the factor on the learning rate at a step: a linear rise, then half a cosine."""
    rise = min(1.0, (step + 1) / (spec.warmup_steps + 1))
    progress = max(0.0, step - spec.warmup_steps) / max(1, num_steps - spec.warmup_steps)
    return rise * (spec.final_fraction + (1 - spec.final_fraction) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def trainable(modules: Mapping[str, nn.Module], freeze: Sequence[str]) -> dict[str, nn.Parameter]:
    """Return the parameters that no pattern freezes, by full name, and set `requires_grad` of all accordingly.

    Raises:
        SpecError: if a pattern matches no parameter, or all are frozen.
    """
    named = {f"{prefix}.{name}": each for prefix, module in modules.items() for name, each in module.named_parameters()}
    for pattern in freeze:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise SpecError([Fault("freeze", f"{pattern!r} matches no parameter; names look like {next(iter(named))}")])
    chosen = {}
    for name, parameter in named.items():
        parameter.requires_grad_(not any(fnmatchcase(name, pattern) for pattern in freeze))
        if parameter.requires_grad:
            chosen[name] = parameter
    if not chosen:
        raise SpecError([Fault("freeze", "leaves nothing to train")])
    return chosen


class Optimizer:
    """AdamW over named parameters; its state goes to and comes from tensors by those names."""

    def __init__(
        self, spec: OptimizerSpec, modules: Mapping[str, nn.Module], parameters: Mapping[str, nn.Parameter]
    ) -> None:
        self.spec = spec
        self.parameters = dict(parameters)
        temporal = set(_temporal(modules))
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in self.parameters.values():
            groups.setdefault((parameter in temporal, parameter.ndim > 1), []).append(parameter)
        self.scales = [spec.temporal_scale if is_temporal else 1.0 for is_temporal, _ in groups]
        self.adamw = torch.optim.AdamW(
            [
                {"params": members, "weight_decay": spec.weight_decay if decays else 0.0}
                for (_, decays), members in groups.items()
            ],
            lr=spec.learning_rate,
            betas=spec.betas,
            fused=True,
        )

    def set_learning_rate(self, step: int, num_steps: int) -> float:
        """Set the learning rate of a step and return it."""
        rate = self.spec.learning_rate * learning_rate_factor(self.spec, step, num_steps)
        for group, scale in zip(self.adamw.param_groups, self.scales, strict=True):
            group["lr"] = rate * scale
        return rate

    def clip(self) -> Tensor:
        """Scale the gradients down to the allowed norm and return what the norm was."""
        return nn.utils.clip_grad_norm_(self.parameters.values(), self.spec.gradient_clip)

    def state(self) -> dict[str, Tensor]:
        """Return the state as tensors: `parameter name|what`; parameters without a gradient so far have none."""
        return {
            f"{name}|{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.adamw.state.get(parameter, {}).items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `state` returned.

        Raises:
            WeightsError: if it belongs to other parameters.
        """
        for key, value in tensors.items():
            name, _, what = key.rpartition("|")
            parameter = self.parameters.get(name)
            if parameter is None or (what in _MOMENTS and value.shape != parameter.shape):
                raise WeightsError(f"the optimizer state {key} belongs to no trained parameter")
            if what in _MOMENTS:
                value = torch.zeros_like(parameter, memory_format=torch.preserve_format).copy_(value)
            self.adamw.state[parameter][what] = value.to(parameter.device, copy=True)


def _temporal(modules: Mapping[str, nn.Module]) -> Iterator[nn.Parameter]:
    for module in modules.values():
        for layer in module.modules():
            if isinstance(layer, TemporalLayer):
                yield from layer.parameters()
