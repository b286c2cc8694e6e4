"""A phase of training: what it trains, on which data, and by which loss; the loop around it is the trainer's."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from lavie.data.base import Clip, Dataset, DatasetSpec
from lavie.metrics.base import MetricSpec
from lavie.spec import Fraction, Spec
from lavie.stages.latent_diffusion import LatentDiffusion
from lavie.training.optimizer import OptimizerSpec
from lavie.training.randomness import Draws

NumSteps = Annotated[int, Field(ge=0, le=100_000_000)]


class EvaluationSpec(Spec):
    """How the averaged weights are looked at while training goes on."""

    every: Annotated[int, Field(ge=1, le=100_000_000)] = 1000
    """Steps between looks; the end of a phase is always looked at."""
    num_clips: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Clips that are made and measured."""
    data: DatasetSpec | None = None
    """Where prompts and labels come from; without it, the end of the phase's own data."""
    metric: MetricSpec | None = None
    """What is measured on the clips that are made."""


class PhaseSpec(Spec, ABC):
    """One phase of a training recipe."""

    kind: ClassVar[str] = "phase"

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=40)]
    """Name of the phase in logs and checkpoints; part of what the random draws depend on."""
    num_steps: NumSteps
    """Optimizer steps."""
    optimizer: OptimizerSpec = OptimizerSpec()
    ema_decay: Fraction = 0.998
    """Decay of the averaged weights, from n steps on min(ema_decay, (1 + n) / (10 + n)); 0 for none."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameter names that are not trained, like `denoiser.down.*`."""
    evaluation: EvaluationSpec = EvaluationSpec()
    num_workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that prepare data; 0 prepares it in line. The result does not depend on it."""

    @abstractmethod
    def build(self, stage: LatentDiffusion) -> "Phase":
        """Build the phase around the networks of a stage."""


@dataclass(frozen=True)
class Source:
    """A dataset and how many of its clips one step takes."""

    dataset: Dataset
    per_step: int


@dataclass(frozen=True)
class Batch:
    """Clips of one source, stacked."""

    video: Float[Tensor, "b 3 f h w"]
    captions: Sequence[str]
    labels: Sequence[Mapping[str, str]]

    def to(self, device: torch.device) -> Self:
        """Return the batch with its video on a device."""
        return replace(self, video=self.video.to(device))


class Phase(ABC):
    """A phase at work."""

    spec: PhaseSpec

    @abstractmethod
    def trained(self) -> dict[str, nn.Module]:
        """Return the modules that this phase trains, by the names they have in a weights file."""

    @abstractmethod
    def sources(self) -> dict[str, Source]:
        """Return where each step takes its clips from."""

    @abstractmethod
    def losses(self, batches: Mapping[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """Return the loss to be minimised as `loss`, and its parts for the log."""

    @abstractmethod
    def look(self, averaged: Mapping[str, nn.Module], picture: Path) -> dict[str, float]:
        """Measure the averaged weights, and save a picture of what they make."""


def held_back(spec: EvaluationSpec, own: Dataset) -> list[Clip]:
    """Return the clips that an evaluation uses: the first of its data, or the last of the phase's own."""
    if spec.data is None:
        first = max(0, len(own) - spec.num_clips)
        return [own.clip(index) for index in range(first, len(own))]
    dataset = spec.data.build()
    return [dataset.clip(index) for index in range(min(spec.num_clips, len(dataset)))]


__all__ = ["Batch", "EvaluationSpec", "Phase", "PhaseSpec", "Source", "held_back"]
