"""One diffusion run: requests, noise, text and given frames, ready to be sampled whole or in parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.blocks.base import Conditioning
from lavie.samplers.base import Denoise, Noise
from lavie.samplers.noise import NoiseSource, batch_noise
from lavie.samplers.prediction import make_denoise
from lavie.stages.base import Given, OnStep, Request, VideoShape
from lavie.stages.coverage import Part
from lavie.stages.travel import check_seen, text_at

if TYPE_CHECKING:
    from lavie.stages.latent_diffusion import LatentDiffusion


@dataclass(frozen=True, eq=False)
class Run:
    """A batch of requests for videos of one shape, on the way through one stage."""

    stage: "LatentDiffusion"
    requests: Sequence[Request]
    shape: VideoShape
    on_step: OnStep | None = None
    first: int = 0
    """Which frame of the noise its first frame has: a clip of a video draws what the video would there."""

    def clip(self, frames: range, given: Sequence[Given | None]) -> "Run":
        """Return a run for some frames of the video alone, with other given frames, and told what is asked for there.

        It may lie beyond the video's end; the last text holds there.
        """
        place = self._place(Part(frames))
        requests = [
            replace(request, prompt=text_at(request.prompt, place), given=each)
            for request, each in zip(self.requests, given, strict=True)
        ]
        shape = self.shape.model_copy(update={"num_frames": len(frames)})
        return replace(self, requests=requests, shape=shape, first=self.first + frames.start)

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
        return batch_noise(self.sources, "initial", self.first)(0, self.size).to(self.device)

    def noise(self) -> Noise:
        """Return the noise of the solver's steps."""
        return batch_noise(self.sources, "step", self.first)

    def denoise(self, part: Part | None = None) -> Denoise:
        """Return the guided `denoise` of a part of the latent, or of all of it."""
        guide = self.stage.guidance
        return guide(self._denoise(self._texts, part), self._denoise(self._negatives, part))

    def check_prompts(self, parts: Sequence[Part]) -> None:
        """Refuse prompts with segments of which no part would be told: a part is told what is asked for at its centre.

        Raises:
            SpecError: with the remedy.
        """
        for request in self.requests:
            check_seen(request.prompt, [self._place(part) for part in parts])

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

    def _texts(self, part: Part) -> list[str]:
        text, place = self.stage.spec.prompt.text, self._place(part)
        return [text(text_at(request.prompt, place)) for request in self.requests]

    def _negatives(self, part: Part) -> list[str]:
        own = self.stage.spec.prompt.negative
        return [own if request.negative_prompt is None else request.negative_prompt for request in self.requests]

    def _place(self, part: Part) -> float:
        """Return where in the video the centre of a part lies, from 0 to 1."""
        return (part.frames.start + part.frames.stop) / (2 * self.shape.num_frames)

    @cached_property
    def _contexts(self) -> dict[str, Tensor]:
        return {}

    def _context(self, texts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Encode texts, each of them once and on its own: what else is in the batch does not change it."""
        encoder = self.stage.text_encoder
        if new := [text for text in dict.fromkeys(texts) if text not in self._contexts]:
            with self.stage.residence.holding(encoder):
                self._contexts.update({text: encoder.encode([text]).to(self.dtype) for text in new})
        return torch.cat([self._contexts[text] for text in texts])

    def _denoise(self, texts: Callable[[Part], list[str]], part: Part | None) -> Denoise:
        stage, whole = self.stage, Part(range(self.shape.num_frames))

        # The text is encoded when first asked for: without guidance the unconditional branch never is.
        def denoise(noisy: Tensor, sigma: float) -> Tensor:
            inputs = self.inputs if part is None else part.of_inputs(self.inputs)
            cond = Conditioning(self._context(texts(part or whole)), inputs=inputs)
            return make_denoise(stage.denoiser, stage.schedule, stage.spec.prediction_type, cond, self.dtype)(
                noisy, sigma
            )

        return denoise
