"""Recursion: a clip, then another that begins with its last frames, and so on (arXiv 2309.15103, §3.5)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.errors import Fault, SpecError
from lavie.samplers.base import Sampler
from lavie.stages.coverage import Coverage, Part
from lavie.stages.given_frames import GivenFrames
from lavie.stages.source import Source
from lavie.stages.windows import FrameWindowsSpec, Overlap

if TYPE_CHECKING:
    from lavie.stages.run import Run


@final
class Recursive(Coverage):
    """Makes clip after clip; the last frames of each are given frames of the next."""

    def __init__(self, spec: "RecursiveSpec", sampler: Sampler, source: GivenFrames) -> None:
        self.spec = spec
        self.sampler = sampler
        self.source = source

    def latent(self, run: "Run") -> Float[Tensor, "b c f h w"]:
        """Sample all clips and return the latents to decode; frames that the run gives are given to their clips."""
        given, num_frames = run.inputs["frames"], run.shape.num_frames
        clips = self.clips(num_frames)
        run.check_prompts([Part(frames) for frames in clips])
        latent = torch.zeros(run.size, device=run.device)
        for number, frames in enumerate(clips):
            done = self.spec.overlap if number else 0
            clip = run.clip(frames, {"frames": self._frames(given, latent, frames, done)})
            made = clip.sample(clip.denoise(), clip.initial())
            stop = min(frames.stop, num_frames)
            latent[:, :, frames.start + done : stop] = made[:, :, done : stop - frames.start]
        return latent

    def num_steps(self, num_frames: int) -> int:
        """Return the solver's steps for all clips."""
        return len(self.clips(num_frames)) * len(self.sampler.timesteps)

    def clips(self, num_frames: int) -> list[range]:
        """Return the frames of each clip; all are of full length, so the last may end behind the video."""
        size, overlap = self.spec.num_frames, self.spec.overlap
        if num_frames <= size:
            return [range(num_frames)]
        return [range(start, start + size) for start in range(0, num_frames - overlap, size - overlap)]

    def _frames(
        self, given: Float[Tensor, "b m f h w"], latent: Float[Tensor, "b c f h w"], frames: range, done: int
    ) -> Float[Tensor, "b m n h w"]:
        """Lay out what a clip is given: its first `done` frames, as made, and what the run gives."""
        inside = range(frames.start, min(frames.stop, given.shape[2]))
        return torch.cat([self._of_one(*each, inside, done, len(frames)) for each in zip(given, latent, strict=True)])

    def _of_one(
        self, given: Float[Tensor, "m f h w"], latent: Float[Tensor, "c f h w"], inside: range, done: int, length: int
    ) -> Float[Tensor, "1 m n h w"]:
        known, mask = given[:-1], given[-1]
        made: Sequence[int] = inside[:done]
        told = [frame for frame in inside[done:] if mask[frame].any()]
        joined = torch.cat((latent[:, list(made)].to(known), known[:, told]), dim=1)
        places = [frame - inside.start for frame in (*made, *told)]
        return self.source.lay_out(joined[None], places, length)


@final
class RecursiveSpec(FrameWindowsSpec):
    """Clip after clip, each beginning with the last frames of the one before; needs a stage that takes given frames."""

    type: Literal["recursive"] = "recursive"
    overlap: Overlap = 1
    """Last frames of a clip that the next one is given; the paper gives one."""

    def build(self, sampler: Sampler, source: Source | None) -> Recursive:
        """Build it.

        Raises:
            SpecError: if the stage takes no given frames, or cannot do without.
        """
        if not isinstance(source, GivenFrames) or source.is_required:
            reason = "recursive gives each clip the last frames of the one before, and the first clip none"
            raise SpecError([Fault("coverage", f"{reason}; it needs source given_frames with a mask and every 1")])
        if self.overlap == 0:
            raise SpecError([Fault("coverage.overlap", "recursive needs at least one frame to go on from")])
        return Recursive(self, sampler, source)
