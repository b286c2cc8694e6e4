"""What every stage is: a function from requests to videos, built from a spec."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field, ValidationError
from torch import Tensor, nn

from lavie.errors import Fault, SpecError
from lavie.faults import faults_of
from lavie.samplers.base import Step
from lavie.spec import Size, Spec
from lavie.stages.lazy_video import LazyVideo

MAX_FRAMES = 4096
"""Most frames of a video."""


class VideoShape(Spec):
    """Size and rate of a video."""

    num_frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] = 16
    """Frames."""
    height: Size = 320
    """Pixels; a multiple of the autoencoder's factor."""
    width: Size = 512
    """Pixels; a multiple of the autoencoder's factor."""
    fps: Annotated[float, Field(gt=0, le=240)] = 8.0
    """Frames per second of the file that is written."""

    def changed(self, path: str = "video", **values: int | float) -> "VideoShape":
        """Return a shape with other values.

        Raises:
            SpecError: naming `path` and what is beyond a video's limits.
        """
        try:
            return VideoShape(**{**dict(self), **values})
        except ValidationError as error:
            raise SpecError([fault.below(path) for fault in faults_of(error)]) from None


class PromptSpec(Spec):
    """What a stage makes of the user's prompt before its text encoder reads it."""

    suffix: Annotated[str, Field(max_length=200)] = ""
    """Appended to every prompt, as in ", 4k."."""
    negative: Annotated[str, Field(max_length=1000)] = ""
    """What guidance moves away from where the request names nothing; empty is the unconditional text."""
    underscores: bool = False
    """Spaces become underscores first. The release's later stages read the prompt from a file name; kept to compare."""

    def text(self, prompt: str) -> str:
        """Return what the text encoder is to read for a prompt."""
        return (prompt.replace(" ", "_") if self.underscores else prompt) + self.suffix


@dataclass(frozen=True)
class Given:
    """Frames that a video is to be made from or around."""

    video: LazyVideo
    """One video."""
    places: tuple[int, ...] | None = None
    """Which frame of the result each of its frames stands for; None leaves it to the stage."""

    @property
    def shape(self) -> VideoShape:
        """Return the video's size and rate.

        Raises:
            SpecError: if it is more than one video, or one beyond the limits.
        """
        if self.video.batch_size != 1:
            raise SpecError([Fault("given", f"holds {self.video.batch_size} videos; split them, one per request")])
        video = self.video
        size = {"num_frames": video.num_frames, "height": video.height, "width": video.width}
        return VideoShape().changed("given", **size, fps=video.fps)

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the pixels as bytes, their places and their rate."""
        digest = hashlib.sha256(f"{self.shape.model_dump_json()} {self.places}".encode())
        for picture in self.video.pictures():
            digest.update(picture.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Request:
    """What one video is made from; together with the stage's spec and weights it determines every pixel."""

    prompt: str
    negative_prompt: str | None = None
    """What guidance moves away from; None takes the stage's own."""
    seed: int = 0
    """In [0, 2^63): the same seed draws the same noise, whatever else is in the batch."""
    given: Given | None = None
    """Frames to start from; stages that take none refuse them."""


OnStep = Callable[[str, Step], None]
"""Called with the stage's name after every solver step, for progress; what it raises ends the run."""
Keep = Callable[[str, Callable[[], Tensor]], Tensor]
"""Called with a stage's name and a function that makes its latents: returns those, or those of a run that died."""


class Stage(nn.Module, ABC):
    """Networks and a sampler that turn requests into videos."""

    @abstractmethod
    def generate(
        self, requests: Sequence[Request], on_step: OnStep | None = None, keep: Keep | None = None
    ) -> LazyVideo:
        """Make one video per request; latents go through `keep`, which may know them from before.

        Raises:
            SpecError: if a request gives frames that the stage has no use for, or lacks those that it needs.
        """

    @abstractmethod
    def parts(self) -> Mapping[str, "Stage"]:
        """Return the single stages by name, in their order; a single stage is its own only part, named ""."""

    @abstractmethod
    def num_steps(self) -> int:
        """Return how many steps `on_step` is called for per video."""

    @abstractmethod
    def unknown_words(self, prompt: str) -> list[str]:
        """Return the words of a prompt that the text encoder does not know or would cut off."""


class StageSpec(Spec, ABC):
    """A stage of the cascade, or all of it."""

    kind: ClassVar[str] = "stage"

    @abstractmethod
    def parts(self) -> Mapping[str, "StageSpec"]:
        """Return the specs of the single stages by name, as `Stage.parts` does."""

    @abstractmethod
    def shape(self, given: VideoShape | None = None) -> VideoShape:
        """Return size and rate of the videos that come out, with and without a video going in."""

    @abstractmethod
    def wanted(self) -> VideoShape | None:
        """Return the shape that a given video should have, its frames being the most; None if the stage takes none."""

    @abstractmethod
    def build(self) -> Stage:
        """Build the stage with fresh weights.

        Raises:
            ValueError: if parts of the spec do not fit one another.
        """
