"""One diffusion run: requests, noise, text and given frames, ready to be sampled whole or in parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.blocks.base import Conditioning
from lavie.samplers.base import Denoise, Noise
from lavie.samplers.noise import NoiseSource, batch_noise
from lavie.samplers.prediction import make_denoise
from lavie.stages.base import OnStep, Request, VideoShape
from lavie.stages.coverage import Part

if TYPE_CHECKING:
    from lavie.stages.latent_diffusion import LatentDiffusion


@dataclass(frozen=True, eq=False)
class Run:
    """A batch of requests for videos of one shape, on the way through one stage."""

    stage: "LatentDiffusion"
    requests: Sequence[Request]
    shape: VideoShape
    on_step: OnStep | None = None

    @property
    def size(self) -> tuple[int, int, int, int, int]:
        """Return the latents' (batch, channels, frames, height, width)."""
        autoencoder, shape = self.stage.autoencoder, self.shape
        height, width = shape.height // autoencoder.factor, shape.width // autoencoder.factor
        return len(self.requests), autoencoder.latent_channels, shape.num_frames, height, width

    @property
    def sources(self) -> list[NoiseSource]:
        """Return each video's noise."""
        return [NoiseSource(request.seed, self.stage.name) for request in self.requests]

    def initial(self) -> Float[Tensor, "b c f h w"]:
        """Return the standard normal draw that sampling begins with."""
        return batch_noise(self.sources, "initial")(0, self.size).to(self.device)

    def noise(self) -> Noise:
        """Return the noise of the solver's steps."""
        return batch_noise(self.sources, "step")

    def denoise(self, part: Part | None = None) -> Denoise:
        """Return the guided `denoise` of a part of the latent, or of all of it."""
        guide = self.stage.guidance
        return guide(self._denoise("_conditional", part), self._denoise("_unconditional", part))

    def sample(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Let the sampler walk all its steps, and return the latents to decode."""
        sampler, step = self.stage.sampler, None
        for step in sampler.steps(denoise, initial, self.noise()):
            if self.on_step is not None:
                self.on_step(self.stage.name, step)
        assert step is not None, "a sampler has at least one step"
        return sampler.latent(step)

    @property
    def device(self) -> torch.device:
        """Return where the network is."""
        return next(self.stage.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Return what the network computes in."""
        return next(self.stage.denoiser.parameters()).dtype

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """Return the inputs of the network's conditioners, for all videos."""
        source, autoencoder = self.stage.source, self.stage.autoencoder
        if source is None:
            return {}
        each = [
            source.inputs(request.given, self.shape, autoencoder, noise)
            for request, noise in zip(self.requests, self.sources, strict=True)
        ]
        joined = {name: torch.cat([inputs[name] for inputs in each]) for name in each[0]}
        return {name: x.to(self.dtype) if x.is_floating_point() else x for name, x in joined.items()}

    @cached_property
    def _conditional(self) -> Conditioning:
        texts = [self.stage.spec.prompt.text(request.prompt) for request in self.requests]
        return Conditioning(self.stage.text_encoder.encode(texts).to(self.dtype), inputs=self.inputs)

    @cached_property
    def _unconditional(self) -> Conditioning:
        own = self.stage.spec.prompt.negative
        texts = [own if request.negative_prompt is None else request.negative_prompt for request in self.requests]
        return Conditioning(self.stage.text_encoder.encode(texts).to(self.dtype), inputs=self.inputs)

    def _denoise(self, branch: str, part: Part | None) -> Denoise:
        stage = self.stage

        # The text is encoded when first asked for: without guidance the unconditional branch never is.
        def denoise(noisy: Tensor, sigma: float) -> Tensor:
            cond: Conditioning = getattr(self, branch)
            if part is not None:
                cond = Conditioning(cond.context, inputs=part.of_inputs(cond.inputs))
            return make_denoise(stage.denoiser, stage.schedule, stage.spec.prediction_type, cond, self.dtype)(
                noisy, sigma
            )

        return denoise
