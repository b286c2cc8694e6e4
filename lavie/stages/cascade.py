"""A cascade: stages one after the other, each making more of the video of the one before (arXiv 2309.15103)."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, final

from torch import nn

from lavie.errors import SpecError
from lavie.stages.base import Given, Keep, OnStep, Request, Stage, StageSpec, VideoShape
from lavie.stages.lazy_video import LazyVideo, PixelVideo
from lavie.video import read_video, to_video, write_video

Handover = Literal["latent", "mp4"]


@final
class Cascade(Stage):
    """Stages in a row, which hand their videos over in memory, as latents."""

    def __init__(self, spec: "CascadeSpec", stages: Mapping[str, Stage]) -> None:
        super().__init__()
        self.spec = spec
        self.stages = nn.ModuleDict(stages)

    def generate(
        self, requests: Sequence[Request], on_step: OnStep | None = None, keep: Keep | None = None
    ) -> LazyVideo:
        """Make one video per request: the first stage from the request, each further one from the video so far.

        What `keep` knows of a stage by its name in `parts()` is not made again.
        """
        (name, first), *further = self.parts().items()
        video = first.generate(requests, on_step, _under(name, keep))
        for name, stage in further:
            given = [Given(handed_over(each, self.spec.handover)) for each in video.split()]
            video = stage.generate(
                [
                    Request(request.prompt, seed=request.seed, given=each)
                    for request, each in zip(requests, given, strict=True)
                ],
                on_step,
                _under(name, keep),
            )
        return video

    def parts(self) -> dict[str, Stage]:
        """Return the stages by name, in their order."""
        return {name: stage for name, stage in self.stages.items() if isinstance(stage, Stage)}

    def num_steps(self) -> int:
        """Return how many steps `on_step` is called for per video."""
        return sum(stage.num_steps() for stage in self.parts().values())

    def unknown_words(self, prompt: str) -> list[str]:
        """Return the words of a prompt that the first stage's text encoder does not know or would cut off."""
        return next(iter(self.parts().values())).unknown_words(prompt)


def handed_over(video: LazyVideo, handover: Handover) -> LazyVideo:
    """Return what the next stage gets of a video: the video itself, or what an mp4 file keeps of it."""
    if handover == "latent":
        return video
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, video.pictures(), video.fps)
        return PixelVideo(to_video(read_video(path).frames)[None], video.fps)


def _under(name: str, keep: Keep | None) -> Keep | None:
    """Return a `keep` for a stage of the cascade: two stages may call themselves the same."""
    return None if keep is None else lambda _, make: keep(name, make)


@final
class CascadeSpec(StageSpec):
    """Up to three stages in a row."""

    type: Literal["cascade"] = "cascade"
    base: StageSpec
    """Makes a video from text."""
    interpolation: StageSpec | None = None
    """Puts frames between those of the base stage; null leaves it out."""
    upscaling: StageSpec | None = None
    """Makes the video larger; null leaves it out."""
    handover: Handover = "latent"
    """What a stage gets from the one before: its latents, or an H.264 file of its pixels as in the release, which
    loses detail; kept to compare."""

    def parts(self) -> dict[str, StageSpec]:
        """Return the specs of the stages by name, in their order."""
        stages = {"base": self.base, "interpolation": self.interpolation, "upscaling": self.upscaling}
        return {name: stage for name, stage in stages.items() if stage is not None}

    def shape(self, given: VideoShape | None = None) -> VideoShape:
        """Return size and rate of the videos that come out of the last stage.

        Raises:
            SpecError: if they are beyond the limits in a stage.
        """
        for name, stage in self.parts().items():
            try:
                given = stage.shape(given)
            except SpecError as error:
                raise SpecError([fault.below(name) for fault in error.faults]) from None
        assert given is not None
        return given

    def wanted(self) -> VideoShape | None:
        """Return the shape that a video given to the first stage should have; None if it takes none."""
        return self.base.wanted()

    def build(self) -> Cascade:
        """Build all stages with fresh weights.

        Raises:
            ValueError: if parts of the spec do not fit one another.
        """
        stages = {}
        for name, stage in self.parts().items():
            try:
                stages[name] = stage.build()
            except SpecError as error:
                raise SpecError([fault.below(name) for fault in error.faults], error.source) from error
        return Cascade(self, stages)
