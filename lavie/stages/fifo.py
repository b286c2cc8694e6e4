"""FIFO: a queue of frames that grow noisier towards its end, denoised together (arXiv 2405.11473)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.errors import Fault, SpecError
from lavie.samplers.base import OneStepSampler, Sampler, Step
from lavie.stages.coverage import Coverage, Part
from lavie.stages.source import Source
from lavie.stages.windows import FrameWindowsSpec, Overlap, windows

if TYPE_CHECKING:
    from lavie.stages.run import Run


@final
class Fifo(Coverage):
    """Denoises a queue with one frame for every step of the solver; in each turn all frames take one step.

    The first one is then clean and leaves, and pure noise joins at the end. The queue begins as a clip of the network's
    own length, noised again; places before it are filled with its first frame, and those never reach the video.
    """

    def __init__(self, spec: "FifoSpec", sampler: OneStepSampler) -> None:
        self.spec = spec
        self.sampler = sampler

    def latent(self, run: "Run") -> Float[Tensor, "b c f h w"]:
        """Sample the run and return the latents to decode."""
        size, num_frames = self.spec.num_frames, run.shape.num_frames
        if num_frames <= size:
            run.check_prompts([Part(range(num_frames))])
            return run.sample(run.denoise(), run.initial())
        clip = torch.split(run.sample(run.denoise(Part(range(size))), run.initial()[:, :, :size]), 1, dim=2)
        head = size - len(self.sampler.timesteps)
        clean = {number: clip[max(number, 0)] for number in range(min(head - self.spec.overlap, 0), head)}
        queue = [self._noised(run, number, clip[max(number, 0)]) for number in range(head, size)]
        turns = num_frames - head
        for turn in range(turns):
            step, queue = self._turn(run, head + turn, clean, queue)
            clean[head + turn] = self.sampler.latent(step)
            queue.append(self.sampler.start(_single(run, size + turn).initial()))
            if run.on_step is not None:
                run.on_step(run.stage.name, replace(step, index=turn, num_steps=turns))
        return torch.cat([clean[number] for number in range(num_frames)], dim=2)

    def num_steps(self, num_frames: int) -> int:
        """Return the steps of the first clip, and a turn for each frame that leaves the queue."""
        count = len(self.sampler.timesteps)
        return count if num_frames <= self.spec.num_frames else 2 * count + num_frames - self.spec.num_frames

    def _noised(self, run: "Run", number: int, frame: Float[Tensor, "b c 1 h w"]) -> Float[Tensor, "b c 1 h w"]:
        """Noise a clean frame to the level of its place in the queue, whose last place is the noisiest."""
        sigma = self.sampler.sigmas[self.spec.num_frames - 1 - number].item()
        return frame + sigma * _single(run, number).initial()

    def _turn(self, run: "Run", head: int, clean: dict[int, Tensor], queue: list[Tensor]) -> tuple[Step, list[Tensor]]:
        """Let every frame of a queue take a step; return that of the first, frame `head` of the video, and the rest.

        A window moves only frames that come after `overlap` cleaner ones ("lookahead", arXiv 2405.11473, §4.3).
        """
        last, overlap = len(queue) - 1, self.spec.overlap
        frames = [*(clean[number] for number in range(head - overlap, head)), *queue]
        steps = [last] * overlap + list(range(last, -1, -1))
        moved: list[tuple[Tensor, Tensor]] = []
        for span in windows(len(frames), self.spec.num_frames, overlap):
            part = slice(span.start, span.stop)
            denoised = self._denoise(run, head - overlap + span.start, frames[part], steps[part])
            for place in range(overlap + len(moved), span.stop):
                noise = _single(run, head - overlap + place).noise()
                moved.append(self.sampler.move(steps[place], frames[place], denoised[place - span.start], noise))
        return self.sampler.step(last, *moved[0]), [noisy for noisy, _ in moved[1:]]

    def _denoise(self, run: "Run", start: int, frames: Sequence[Tensor], steps: Sequence[int]) -> Sequence[Tensor]:
        """Ask the network about neighbouring frames of the queue, each at its own noise level."""
        levels = self.sampler.sigmas[list(steps)].tolist()
        denoise = run.denoise(Part(range(start, start + len(frames))), levels)
        return torch.split(denoise(torch.cat(list(frames), dim=2), levels[len(levels) // 2]), 1, dim=2)


def _single(run: "Run", number: int) -> "Run":
    """Return the run of one frame alone, for its noise."""
    return run.clip(range(number, number + 1), {})


@final
class FifoSpec(FrameWindowsSpec):
    """A queue of frames at rising noise levels: any length in constant memory, for solvers of one step at a time."""

    type: Literal["fifo"] = "fifo"
    overlap: Overlap = 8
    """Frames of each window that are only looked at, being cleaner than those it moves; half a window in the paper."""

    def build(self, sampler: Sampler, source: Source | None) -> Fifo:
        """Build it.

        Raises:
            SpecError: if the solver remembers steps or takes them in halves, or if the stage starts from given frames.
        """
        if not isinstance(sampler, OneStepSampler):
            reason = (
                f"every frame of the queue is at another step, and {type(sampler).__name__} needs more than one step"
            )
            raise SpecError([Fault("coverage", f"{reason}; use ddim, euler, ddpm, euler_ancestral or lcm")])
        if source is not None:
            raise SpecError([Fault("coverage", "fifo makes videos from text alone; with given frames use windows")])
        return Fifo(self, sampler)
