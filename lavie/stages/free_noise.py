"""FreeNoise: long videos from the noise of a short one, shuffled (arXiv 2310.15169)."""

from itertools import cycle
from typing import TYPE_CHECKING, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Sampler
from lavie.samplers.noise import NoiseSource
from lavie.stages.coverage import Coverage
from lavie.stages.source import Source
from lavie.stages.windows import FrameWindowsSpec, blended, windows

if TYPE_CHECKING:
    from lavie.stages.run import Run


def shuffled_frames(source: NoiseSource, num_frames: int, window: int, stride: int) -> list[int]:
    """Return, for every frame, which frame of the first window has its noise (arXiv 2310.15169, §3.2).

    The first window keeps its own noise. Behind it, each block of `stride` frames repeats a block of the window, the
    blocks taking turns, in an order drawn for it: any window holds nearly the same draws as the first.
    """
    order = list(range(window))
    blocks = [range(start, min(start + stride, window)) for start in range(0, window, stride)]
    for turn, block in enumerate(cycle(blocks)):
        if len(order) >= num_frames:
            break
        drawn = torch.randperm(len(block), generator=source.generator("shuffle", turn))
        order += [block[index] for index in drawn.tolist()]
    return order[:num_frames]


@final
class FreeNoise(Coverage):
    """Blends windows whose noise is that of the first window, shuffled."""

    def __init__(self, spec: "FreeNoiseSpec", sampler: Sampler) -> None:
        self.spec = spec
        self.sampler = sampler

    def latent(self, run: "Run") -> Float[Tensor, "b c f h w"]:
        """Sample the run and return the latents to decode."""
        spec, num_frames = self.spec, run.shape.num_frames
        stride = spec.num_frames - spec.overlap
        orders = [shuffled_frames(source, num_frames, spec.num_frames, stride) for source in run.sources]
        initial = torch.stack([noise[:, order] for noise, order in zip(run.initial(), orders, strict=True)])
        return run.sample(blended(run, windows(num_frames, spec.num_frames, spec.overlap)), initial)

    def num_steps(self, num_frames: int) -> int:
        """Return the solver's steps, in each of which all windows are seen."""
        return len(self.sampler.timesteps)


@final
class FreeNoiseSpec(FrameWindowsSpec):
    """Windows whose noise is that of the first one, shuffled, so that they agree on what is seen.

    The paper fuses windows in every temporal attention, and lets all other layers see the whole video; here the whole
    network sees a window, and denoised latents are fused.
    """

    type: Literal["free_noise"] = "free_noise"

    def build(self, sampler: Sampler, source: Source | None) -> FreeNoise:
        """Build it."""
        return FreeNoise(self, sampler)
