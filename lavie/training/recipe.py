"""Recipes: a model, and the phases that train it one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, final

import torch
from pydantic import Field, model_validator

from lavie.errors import Fault, SpecError
from lavie.spec import Spec, dump
from lavie.stages.base import StageSpec
from lavie.stages.latent_diffusion import LatentDiffusion
from lavie.training.phase import Phase, PhaseSpec
from lavie.training.randomness import derived


class CheckpointsSpec(Spec):
    """When a run is saved."""

    every: Annotated[int, Field(ge=1, le=100_000_000)] = 500
    """Steps between checkpoints."""
    keep: Annotated[int, Field(ge=1, le=10_000)] = 2
    """How many of the latest checkpoints are kept, besides those at the ends of phases."""


@dataclass(frozen=True)
class Plan:
    """A recipe at work: the stage with fresh weights and the phases around it."""

    stage: LatentDiffusion
    phases: Sequence[Phase]


class RecipeSpec(Spec, ABC):
    """A whole training run."""

    kind: ClassVar[str] = "recipe"

    @abstractmethod
    def build(self) -> Plan:
        """Build the stage with weights drawn from the recipe's seed, and the phases around it."""


@final
class TrainSpec(RecipeSpec):
    """Train a stage, phase by phase."""

    type: Literal["train"] = "train"
    model: StageSpec
    """The stage to train; in a file, the name or path of its spec will do."""
    phases: Annotated[tuple[PhaseSpec, ...], Field(min_length=1, max_length=64)]
    """What is done, in order."""
    seed: Annotated[int, Field(ge=0, le=2**62)] = 0
    """All random draws of the run derive from it."""
    checkpoints: CheckpointsSpec = CheckpointsSpec()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [phase.name for phase in self.phases]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"phases: more than one is named {', '.join(sorted(doubled))}")
        return self

    def build(self) -> Plan:
        """Build the stage with weights drawn from the recipe's seed, and the phases around it.

        Raises:
            ValueError: if parts of the stage do not fit one another, or a phase does not fit the stage.
        """
        with torch.random.fork_rng():
            torch.manual_seed(derived(self.seed, "weights"))
            stage = self.model.build()
        if not isinstance(stage, LatentDiffusion):
            raise ValueError(f"model: this recipe trains latent_diffusion stages, not {dump(self.model)['type']}")
        return Plan(stage, [self._phase(index, stage) for index in range(len(self.phases))])

    def _phase(self, index: int, stage: LatentDiffusion) -> Phase:
        try:
            return self.phases[index].build(stage)
        except SpecError as error:
            raise SpecError([fault.below(f"phases[{index}]") for fault in error.faults]) from error


def choose(names: Sequence[str], phases: Sequence[str], until_phase: str | None) -> list[int]:
    """Return which phases are to be run, by index.

    Raises:
        SpecError: naming the phases there are, if one is asked for that there is not.
    """
    for name in (*phases, *([until_phase] if until_phase else [])):
        if name not in names:
            raise SpecError([Fault("phases", f"there is no phase {name!r}. The recipe has {', '.join(names)}")])
    last = names.index(until_phase) if until_phase else len(names) - 1
    return [index for index, name in enumerate(names) if index <= last and (not phases or name in phases)]


def past(recipe: Mapping[str, Any], num_phases: int) -> dict[str, Any]:
    """Return what the weights depend on once the first phases of a dumped recipe are done or under way."""
    model = {key: value for key, value in recipe["model"].items() if key not in ("sampler", "guidance")}
    phases = [
        {key: value for key, value in phase.items() if key not in ("num_workers", "evaluation")}
        for phase in recipe["phases"][:num_phases]
    ]
    return {"model": model, "seed": recipe["seed"], "phases": phases}


def differences(old: Any, new: Any, path: str = "") -> list[Fault]:
    """List the places where two pieces of plain data differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(f"{path}.{key}" if path else str(key), old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(old, new, strict=True))]
    else:
        return [] if old == new else [Fault(path, f"was {_short(old)} and is now {_short(new)}")]
    return [fault for place, a, b in pairs for fault in differences(a, b, place)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
