"""A model that is settled but not loaded, and the videos that it makes."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.errors import VideoError
from lavie.generation.record import (
    Recipe,
    Record,
    comment_of,
    environment,
    foreign_components,
    sidecar_of,
    write_sidecar,
)
from lavie.generation.vocabulary import check_words
from lavie.registry import Registry
from lavie.spec import dump, spec_hash
from lavie.stages import LazyVideo, OnStep, Request, Stage, StageSpec, VideoShape, load_stage
from lavie.stages.loading import Weights
from lavie.video import Frames, check_format, enlarge, to_frames, write_video
from lavie.weights.files import WEIGHTS_FILE, read_manifest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions of the networks, by name."""


@dataclass(frozen=True, eq=False)
class GeneratedVideo:
    """A video and the record of what made it; pixels are decoded when they are asked for."""

    source: LazyVideo
    """One video."""
    record: Record

    @property
    def fps(self) -> float:
        """Return the frames per second."""
        return self.source.fps

    @cached_property
    def video(self) -> Float[Tensor, "3 f h w"]:
        """Pixels in [-1, 1], all at once."""
        return self.source.video()[0]

    def frames(self) -> Frames:
        """Return the video as files hold it: uint8, `f h w c`."""
        return to_frames(self.video)

    def save(self, path: str | Path, scale: int = 1) -> Path:
        """Write an .mp4 or .gif, each pixel as a square of `scale` × `scale`, and the record beside it.

        Raises:
            VideoError: naming the path, if the format cannot hold the video or the disk does not take it.
        """
        path = Path(path)
        frames = enlarge(self.frames(), scale)
        recipe = self.record.recipe.model_copy(update={"scale": scale})
        record = self.record.model_copy(update={"recipe": recipe})
        check_format(path, frames.shape[1], frames.shape[2], self.fps)
        with suppress(OSError):
            sidecar_of(path).unlink()  # it would tell of the video that is replaced
        write_video(path, frames, self.fps, comment_of(record))
        write_sidecar(path, record)
        return path


@dataclass(frozen=True, eq=False)
class Model:
    """What is to run: a stage's spec, its weights, device and dtype; nothing is built or loaded yet."""

    spec: StageSpec
    name: str
    weights: Weights
    device: str
    dtype: str
    registry: Registry = field(repr=False)

    @cached_property
    def hash(self) -> str:
        """The spec's hash, computed once for a long list of requests."""
        return spec_hash(self.spec)

    @cached_property
    def weights_sha256(self) -> str:
        """The sha256 of the weights; of several stages, that of the list of theirs."""
        each = [
            read_manifest(folder)["files"].get(WEIGHTS_FILE, {}).get("sha256", "") for folder in self.weights.values()
        ]
        return each[0] if len(each) == 1 else hashlib.sha256(" ".join(each).encode()).hexdigest()

    def shape(self) -> VideoShape:
        """Return size and rate of the videos that come out."""
        return self.spec.shape()

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
            dtype=self.dtype,
            scale=scale,
        )

    def load(self) -> Stage:
        """Build the stage and load its weights.

        Raises:
            WeightsError: if they are damaged or belong to another network.
        """
        return load_stage(self.spec, self.weights, self.device, DTYPES[self.dtype])

    def check_prompts(self, stage: Stage, prompts: Sequence[str]) -> list[str]:
        """Refuse prompts with words that the model never learned; return warnings about what is cut off.

        Raises:
            PromptError: answering with what the model knows.
        """
        warnings = [check_words(prompt, stage.unknown_words(prompt), self.first(), self.name) for prompt in prompts]
        return [warning for warning in warnings if warning]

    def make(self, stage: Stage, request: Request, on_step: OnStep | None = None) -> GeneratedVideo:
        """Make one video, alone in its batch, so that what else is asked for cannot change it."""
        start = time.perf_counter()
        try:
            video = stage.generate([request], on_step)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise VideoError(f"out of memory on {self.device}: ask for fewer frames or a smaller size") from error
            raise
        record = Record(
            recipe=self.recipe(request),
            spec_name=self.name,
            spec=dump(self.spec),
            environment=environment(self.device),
            components=foreign_components(self.spec, self.registry),
            seconds={"generate": round(time.perf_counter() - start, 3)},
        )
        return GeneratedVideo(video, record)


__all__ = ["DTYPES", "GeneratedVideo", "Model"]
