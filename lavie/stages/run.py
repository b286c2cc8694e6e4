"""One diffusion run: requests, noise, text and given frames, ready to be sampled whole or in parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.blocks.base import Conditioning, Place, SpatialLayer
from lavie.errors import Fault, SpecError
from lavie.samplers.base import Denoise, Noise
from lavie.samplers.noise import NoiseSource, batch_noise
from lavie.samplers.prediction import make_denoise
from lavie.stages.base import OnStep, Request, VideoShape
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

    ready: Mapping[str, Tensor] | None = None
    """Inputs of the network's conditioners made elsewhere; None makes them of what the requests give."""

    def clip(self, frames: range, inputs: Mapping[str, Tensor]) -> "Run":
        """Return a run for some frames of the video alone, with inputs of its own, told what is asked for there.

        It may lie before the video's beginning or beyond its end; the first and the last text hold there.
        """
        place = self._place(Part(frames))
        requests = [replace(request, prompt=text_at(request.prompt, place)) for request in self.requests]
        shape = self.shape.model_copy(update={"num_frames": len(frames)})
        return replace(self, requests=requests, shape=shape, first=self.first + frames.start, ready=inputs)

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

    def denoise(self, part: Part | None = None, levels: Sequence[float] | None = None) -> Denoise:
        """Return the guided `denoise` of a part of the latent, or of all of it.

        With `levels` each frame has its own noise level, and the sigma that is passed is what guidance goes by.

        Raises:
            SpecError: if guidance asks for something that the network does not have.
        """
        part = part or Part(range(self.shape.num_frames))
        conditional, unconditional = (_Branch(self, part, levels, texts) for texts in (self.texts, self.negatives))
        guided = self.stage.guidance(conditional, unconditional, perturbed=conditional.perturbed)
        source = self.stage.source
        if source is None:
            return guided
        return lambda noisy, sigma: source.settle(guided(noisy, sigma), part.of_inputs(self.inputs))

    def check_prompts(self, parts: Sequence[Part]) -> None:
        """Refuse prompts with segments of which no part would be told: a part is told what is asked for at its centre.

        Raises:
            SpecError: with the remedy.
        """
        for request in self.requests:
            check_seen(request.prompt, [self._place(part) for part in parts], self.stage.name)

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
        if self.ready is not None or source is None:
            return {**(self.ready or {})}
        each = [
            source.inputs(request.given, self.shape, autoencoder, noise)
            for request, noise in zip(self.requests, self.sources, strict=True)
        ]
        joined = {name: torch.cat([inputs[name] for inputs in each]) for name in each[0]}
        return {name: x.to(self.dtype) if x.is_floating_point() else x for name, x in joined.items()}

    def finish(self, latent: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Return what a network's latents become with what the source knows for certain."""
        source = self.stage.source
        if source is None:
            return latent
        baseline = source.baseline(self.inputs, self.stage.autoencoder)
        return source.settle(latent if baseline is None else baseline + latent, self.inputs)

    def texts(self, part: Part) -> list[str]:
        """Return what each video is told about a part: the text of the segment that its centre lies in."""
        text, place = self.stage.spec.prompt.text, self._place(part)
        return [text(text_at(request.prompt, place)) for request in self.requests]

    def negatives(self, part: Part) -> list[str]:
        """Return what guidance moves each video away from, the same in all parts."""
        own = self.stage.spec.prompt.negative
        return [own if request.negative_prompt is None else request.negative_prompt for request in self.requests]

    def places(self, part: Part) -> dict[str, Tensor]:
        """Return the input that tells where in the video frames lie, from 0 to 1; none for the whole video."""
        last = self.shape.num_frames - 1
        if part.frames == range(last + 1):
            return {}
        return {"frame_places": torch.tensor([min(max(frame / max(last, 1), 0.0), 1.0) for frame in part.frames])}

    def _place(self, part: Part) -> float:
        """Return where in the video the centre of a part lies, from 0 to 1."""
        return (part.frames.start + part.frames.stop) / (2 * self.shape.num_frames)

    @cached_property
    def _contexts(self) -> dict[str, Tensor]:
        return {}

    def context(self, texts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Encode texts, each of them once and on its own: what else is in the batch does not change it."""
        encoder = self.stage.text_encoder
        if new := [text for text in dict.fromkeys(texts) if text not in self._contexts]:
            with self.stage.residence.holding(encoder):
                self._contexts.update({text: encoder.encode([text]).to(self.dtype) for text in new})
        return torch.cat([self._contexts[text] for text in texts])


@dataclass(frozen=True, eq=False)
class _Branch:
    """The network on a part of the latent with one kind of text: a `denoise` for guidance to combine."""

    run: Run
    part: Part
    levels: Sequence[float] | None
    texts: Callable[[Part], list[str]]
    blind: frozenset[Place] = frozenset()

    def __call__(self, noisy: Float[Tensor, "b c f h w"], sigma: float) -> Float[Tensor, "b c f h w"]:
        """Return the denoised part. The text is encoded when first asked for: some guidances never do."""
        run, stage = self.run, self.run.stage
        inputs = self.part.of_inputs(run.inputs) | run.places(self.part)
        cond = Conditioning(run.context(self.texts(self.part)), inputs=inputs, blind=self.blind)
        denoise = make_denoise(stage.denoiser, stage.schedule, stage.spec.prediction_type, cond, run.dtype)
        if self.levels is None:
            return denoise(noisy, sigma)
        return denoise(noisy, torch.tensor(self.levels, dtype=torch.float64).expand(len(noisy), -1))

    def perturbed(self, places: frozenset[Place]) -> Denoise:
        """Return the same with self-attention at some places that sees nothing but its own token.

        Raises:
            SpecError: if the network has none there, naming where it has.
        """
        layers = [layer for layer in self.run.stage.denoiser.modules() if isinstance(layer, SpatialLayer)]
        known = {layer.place for layer in layers if layer.place is not None}
        if missing := places - known:
            has, lacks = (", ".join(sorted(map(str, each))) for each in (known, missing))
            raise SpecError(
                [Fault("guidance.places", f"no self-attention at {lacks}; the network has it at {has or 'no place'}")]
            )
        return replace(self, blind=places)
