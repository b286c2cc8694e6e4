"""Windows and tiles: the network sees the video in parts, all of them in every step, blended where they overlap.

Every solver step moves the whole latent, by denoised latents that are weighted means of those of the parts
(MultiDiffusion, arXiv 2302.08113). So parts agree step by step, instead of being cut together at the end.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Literal, Self, final

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from lavie.samplers.base import Denoise, Sampler
from lavie.spec import Count
from lavie.stages.coverage import Coverage, CoverageSpec, Part
from lavie.stages.source import Source

if TYPE_CHECKING:
    from lavie.stages.run import Run

Overlap = Annotated[int, Field(ge=0, le=4095)]


def windows(length: int, size: int, overlap: int) -> list[range]:
    """Cut [0, length) into windows of `size`, as evenly spread as can be, each sharing `overlap` or more with the next.

    Without overlap they lie end to end and the last one is shorter.
    """
    if length <= size:
        return [range(length)]
    if overlap == 0:
        return [range(start, min(start + size, length)) for start in range(0, length, size)]
    count = math.ceil((length - overlap) / (size - overlap))
    starts = [round(index * (length - size) / (count - 1)) for index in range(count)]
    return [range(start, start + size) for start in starts]


def weights(spans: Sequence[range]) -> list[Float[Tensor, " n"]]:
    """Return how much each window counts at each of its places: all add up to 1 everywhere.

    A weight rises linearly over what a window shares with the one before, and falls so towards the one after.
    """
    ramps, total = [], torch.zeros(spans[-1].stop, dtype=torch.float64)
    for before, span, after in zip([None, *spans[:-1]], spans, [*spans[1:], None], strict=True):
        place = torch.arange(1, len(span) + 1, dtype=torch.float64)
        rise = place / ((before.stop - span.start if before else 0) + 1)
        fall = place.flip(0) / ((span.stop - after.start if after else 0) + 1)
        ramps.append(torch.minimum(rise, fall).clamp(max=1))
        total[span.start : span.stop] += ramps[-1]
    return [(ramp / total[span.start : span.stop]).float() for span, ramp in zip(spans, ramps, strict=True)]


def blended(
    run: "Run", frames: Sequence[range], rows: Sequence[range] | None = None, columns: Sequence[range] | None = None
) -> Denoise:
    """Return a `denoise` of the whole latent that asks the network for windows and blends what it answers."""
    rows, columns = rows or [range(run.size[3])], columns or [range(run.size[4])]
    parts = [Part(*spans) for spans in product(frames, rows, columns)]
    shares = [
        (each[0][:, None, None] * each[1][:, None] * each[2]).to(run.device)
        for each in product(weights(frames), weights(rows), weights(columns))
    ]
    run.check_prompts(parts)
    pieces = list(zip(parts, shares, [run.denoise(part) for part in parts], strict=True))

    def denoise(noisy: Float[Tensor, "b c f h w"], sigma: float) -> Float[Tensor, "b c f h w"]:
        denoised = torch.zeros_like(noisy)
        for part, share, one in pieces:
            part.of(denoised).add_(share * one(part.of(noisy), sigma))
        return denoised

    return denoise


@final
class Windows(Coverage):
    """Shows the network windows of frames, and tiles of them."""

    def __init__(self, spec: "WindowsSpec", sampler: Sampler) -> None:
        self.spec = spec
        self.sampler = sampler

    def latent(self, run: "Run") -> Float[Tensor, "b c f h w"]:
        """Sample the run and return the latents to decode."""
        spec, (_, _, num_frames, height, width) = self.spec, run.size
        frames = windows(num_frames, spec.num_frames, spec.overlap)
        rows, columns = (windows(side, spec.tile or side, spec.tile_overlap) for side in (height, width))
        return run.sample(blended(run, frames, rows, columns), run.initial())

    def num_steps(self, num_frames: int) -> int:
        """Return the solver's steps, in each of which all windows are seen."""
        return len(self.sampler.timesteps)


class FrameWindowsSpec(CoverageSpec):
    """A coverage by windows of frames."""

    num_frames: Count = 16
    """Frames of a window: as many as the network was trained on."""
    overlap: Overlap = 4
    """Frames that neighbouring windows share, at least; more makes borders softer and costs more windows."""

    @model_validator(mode="after")
    def _moves_on(self) -> Self:
        if self.overlap >= self.num_frames:
            raise ValueError(f"overlap: {self.overlap} frames of windows of {self.num_frames}; it must be smaller")
        return self


@final
class WindowsSpec(FrameWindowsSpec):
    """Overlapping windows of frames, blended in every step; with overlap 0, chunks that know nothing of each other."""

    type: Literal["windows"] = "windows"
    tile: Annotated[int, Field(ge=8, le=2048)] | None = None
    """Rows and columns of the latent that the network sees at once; left out: all of them."""
    tile_overlap: Overlap = 8
    """Rows and columns that neighbouring tiles share, at least."""

    @model_validator(mode="after")
    def _tiles_move_on(self) -> Self:
        if self.tile is not None and self.tile_overlap >= self.tile:
            raise ValueError(f"tile_overlap: {self.tile_overlap} of a tile of {self.tile}; it must be smaller")
        return self

    def build(self, sampler: Sampler, source: Source | None) -> Windows:
        """Build it."""
        return Windows(self, sampler)
