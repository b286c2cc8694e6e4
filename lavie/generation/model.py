"""A model that is settled but not loaded, and the videos that it makes."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lavie.generation.generated import GeneratedVideo
from lavie.generation.ladder import Ladder, SteadyVideo
from lavie.generation.memory import LOADING_REMEDY, answering, decoding_remedy, sampling_remedy
from lavie.generation.record import Recipe, Record, environment, foreign_components
from lavie.generation.vocabulary import check_words
from lavie.registry import Registry
from lavie.spec import dump, spec_hash
from lavie.stages import Given, Keep, OnStep, Request, Stage, StageSpec, VideoShape, load_stage
from lavie.stages.latent_diffusion import LatentDiffusionSpec
from lavie.stages.loading import Weights
from lavie.weights.files import read_manifest
from lavie.weights.stored import tensor_files

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions of the networks, by name."""


@dataclass(frozen=True)
class Economy:
    """How a run saves memory beyond what its spec says."""

    in_turn: bool = False
    """Load networks when they go to work and release them afterwards."""
    told: tuple[str, ...] = ()
    """What was planned, for the record."""


@dataclass(frozen=True, eq=False)
class Model:
    """What is to run: a stage's spec, its weights, device and dtype; nothing is built or loaded yet."""

    spec: StageSpec
    name: str
    weights: Weights
    device: str
    dtype: str
    registry: Registry = field(repr=False)
    economy: Economy = Economy()

    @cached_property
    def hash(self) -> str:
        """The spec's hash, computed once for a long list of requests."""
        return spec_hash(self.spec)

    @cached_property
    def weights_sha256(self) -> str:
        """The sha256 of the weights; of several files, that of the list of theirs."""
        paths = dict.fromkeys(path for folder in self.weights.values() for path in tensor_files(folder).values())
        each = [read_manifest(path.parent)["files"].get(path.name, {}).get("sha256", "") for path in paths]
        return each[0] if len(each) == 1 else hashlib.sha256(" ".join(each).encode()).hexdigest()

    def sources(self) -> dict[str, str]:
        """Return the published files that the weights were converted from, and the sha256 of each."""
        return {
            f"{name}: {file}" if name else str(file): str(digest)
            for name, folder in self.weights.items()
            for file, digest in dict(read_manifest(folder).get("sources") or {}).items()
        }

    def shape(self, given: Given | None = None) -> VideoShape:
        """Return size and rate of the videos that come out, of given frames if there are any."""
        return self.spec.shape(None if given is None else given.shape)

    def first(self) -> StageSpec:
        """Return the spec of the stage that the request goes to."""
        return next(iter(self.spec.parts().values()))

    def trained_shape(self) -> VideoShape:
        """Return size and rate of the videos that the first stage's weights were made for."""
        folder = next(iter(self.weights.values()))
        recorded = read_manifest(folder).get("spec")
        if recorded is None:
            return self.first().shape()
        return self.registry.load(StageSpec, recorded, str(folder)).shape()  # type: ignore[type-abstract]

    def recipe(self, request: Request, scale: int = 1) -> Recipe:
        """Return everything that determines the pixels of a request's file."""
        return Recipe(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            seed=request.seed,
            spec_hash=self.hash,
            weights_sha256=self.weights_sha256,
            given=request.given.sha256 if request.given is not None else "",
            dtype=self.dtype,
            scale=scale,
        )

    def load(self) -> Stage:
        """Build the stage and load its weights.

        Raises:
            WeightsError: if they are damaged or belong to another network.
            OutOfMemoryError: naming the remedy.
        """
        with answering(self.device, "loading the weights", LOADING_REMEDY):
            return load_stage(self.spec, self.weights, self.device, DTYPES[self.dtype], in_turn=self.economy.in_turn)

    def check_prompts(self, stage: Stage, prompts: Sequence[str]) -> list[str]:
        """Refuse prompts with words that the model never learned; return warnings about what is cut off.

        Raises:
            PromptError: answering with what the model knows.
        """
        warnings = [check_words(prompt, stage.unknown_words(prompt), self.first(), self.name) for prompt in prompts]
        return [warning for warning in warnings if warning]

    def make(
        self,
        stage: Stage,
        request: Request,
        on_step: OnStep | None = None,
        keep: Keep | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> GeneratedVideo:
        """Make one video, alone in its batch, so that what else is asked for cannot change it.

        Where memory runs out, less is done at a time, which `on_note` and the record are told.

        Raises:
            OutOfMemoryError: naming the stage and the remedy.
        """
        start = time.perf_counter()
        ladder = Ladder(stage, self.device, on_note)

        def sampled(name: str, make: Callable[[], Tensor]) -> Tensor:
            part = self.spec.parts().get(name, self.first())
            codes = isinstance(part, LatentDiffusionSpec) and part.source is not None

            def steady() -> Tensor:
                remedy = sampling_remedy(self.spec, name)
                return ladder.climb_down(f"sampling in the stage {name}", remedy, make, codes=codes)

            return steady() if keep is None else keep(name, steady)

        with answering(self.device, "handing over to the next stage", "ask for fewer frames or a smaller size"):
            video = stage.generate([request], on_step, sampled)
        remedy = decoding_remedy(self.spec)
        record = Record(
            recipe=self.recipe(request),
            spec_name=self.name,
            spec=dump(self.spec),
            environment=environment(self.device),
            sources=self.sources(),
            components=foreign_components(self.spec, self.registry),
            seconds={"generate": round(time.perf_counter() - start, 3)},
            memory=self.economy.told,
        )
        return GeneratedVideo(SteadyVideo(video, ladder, remedy), record, remedy, ladder.taken)


__all__ = ["DTYPES", "Economy", "Model"]
