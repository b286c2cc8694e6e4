"""FreeInit (arXiv 2312.07537): a solver runs again from the low frequencies of its own result.

Training never hides the slow parts of a video wholly in noise, pure noise has none. So they are taken from a first
result that was noised again; what is fast is drawn anew.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from lavie.samplers.base import Denoise, Noise, Sampler, SamplerSpec, Step, draw
from lavie.samplers.ddim import DDIMSpec
from lavie.samplers.schedule import Schedule
from lavie.spec import Count

Filter = Literal["gaussian", "butterworth"]
Cutoff = Annotated[float, Field(gt=0, le=2)]


@final
class FreeInit(Sampler):
    """Runs another sampler several times, each pass from a start that holds what is slow in the result before.

    `sigmas` is the grid of one pass, `timesteps` and the numbers of the steps go over all of them.
    """

    def __init__(self, inner: Sampler, num_passes: int, low_pass: "LowPass") -> None:
        super().__init__(inner.schedule, inner.sigmas.tolist(), inner.initial_scale)
        self.inner = inner
        self.num_passes = num_passes
        self.low_pass = low_pass
        self.timesteps = num_passes * inner.timesteps

    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk down to the latent and up again; the first pass is that of the inner sampler, draw for draw.

        A result is noised to the level that the grid starts from, with the noise that the first pass started from
        (arXiv 2312.07537, §3.2). Later passes draw under numbers of their own.
        """
        count, start = len(self.inner.timesteps), initial
        for number in range(self.num_passes):
            first = number * (count + 1)
            for step in self.inner.steps(denoise, start, _shifted(noise, first)):
                yield replace(step, index=number * count + step.index, num_steps=len(self.timesteps))
            if number + 1 < self.num_passes:
                latent = self.inner.latent(step)
                again = (latent + self.sigmas[0].item() * initial.to(latent)) / self.initial_scale
                fresh = draw(noise, first + count, latent)
                start = fresh + self.low_pass(again - fresh)


def _shifted(noise: Noise, by: int) -> Noise:
    return lambda step, shape: noise(step + by, shape)


class LowPass:
    """A filter over time and space that lets slow changes through.

    Frequencies are counted in halves of the sampling rate, so that 1 is the fastest that there is.
    """

    def __init__(self, kind: Filter, spatial: float, temporal: float) -> None:
        self.kind = kind
        self.spatial = spatial
        self.temporal = temporal

    def __call__(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Return what is slow in `x`; the mean stays as it is."""
        axes = (-3, -2, -1)
        waves = torch.fft.rfftn(x, dim=axes) * self.response(x)
        return torch.fft.irfftn(waves, s=x.shape[-3:], dim=axes)

    def response(self, like: Float[Tensor, "b c f h w"]) -> Float[Tensor, "f h v"]:
        """Return what each frequency is multiplied by: exp(-d²/2), or 1 / (1 + d⁸), d being 1 at the cutoff."""
        sizes = like.shape[-3:]
        halves = [torch.fft.fftfreq(size, d=0.5, device=like.device, dtype=like.dtype) for size in sizes[:2]]
        halves.append(torch.fft.rfftfreq(sizes[2], d=0.5, device=like.device, dtype=like.dtype))
        cutoffs = (self.temporal, self.spatial, self.spatial)
        time, rows, columns = ((half / cutoff).square() for half, cutoff in zip(halves, cutoffs, strict=True))
        distance = time[:, None, None] + rows[:, None] + columns
        return (-distance / 2).exp() if self.kind == "gaussian" else 1 / (1 + distance**4)


@final
class FreeInitSpec(SamplerSpec):
    """FreeInit: steadier videos, for as many times the calls of the network as there are passes."""

    type: Literal["free_init"] = "free_init"
    num_inference_steps: Count = 50
    """Steps of each pass; takes the place of the inner sampler's own number."""
    inner: Annotated[SamplerSpec, Field(validate_default=True)] = DDIMSpec()
    """The sampler that each pass runs."""
    num_passes: Annotated[int, Field(ge=1, le=16)] = 3
    """Passes, the first of which is the inner sampler's own run."""
    filter: Filter = "butterworth"
    """How sharply slow is told from fast: gaussian, smoothly, or butterworth, of fourth order."""
    spatial_cutoff: Cutoff = 0.25
    """Where fast begins within frames, as a share of the highest frequency, in (0, 2]."""
    temporal_cutoff: Cutoff = 0.25
    """Where fast begins along frames, as a share of the highest frequency, in (0, 2]."""

    @field_validator("inner", mode="after")
    @classmethod
    def _takes_the_steps_of_a_pass(cls, inner: SamplerSpec, info: ValidationInfo) -> SamplerSpec:
        if isinstance(inner, FreeInitSpec):
            raise ValueError("free_init cannot run free_init; give it more num_passes")
        count = info.data.get("num_inference_steps", inner.num_inference_steps)
        return inner.model_copy(update={"num_inference_steps": count})

    def build(self, schedule: Schedule) -> FreeInit:
        """Build the inner sampler and the filter."""
        low_pass = LowPass(self.filter, self.spatial_cutoff, self.temporal_cutoff)
        return FreeInit(self.inner.build(schedule), self.num_passes, low_pass)
