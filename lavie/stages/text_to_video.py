"""The base stage: text to video in one latent diffusion run (arXiv 2309.15103, §3.2)."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self, final

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder, AutoencoderSpec
from lavie.blocks.base import Conditioning, Denoiser, DenoiserSpec
from lavie.blocks.text import TextEncoder, TextEncoderSpec
from lavie.samplers.base import Denoise, Sampler, SamplerSpec
from lavie.samplers.guidance import Guidance, GuidanceSpec
from lavie.samplers.noise import NoiseSource, batch_noise
from lavie.samplers.prediction import check_prediction, make_denoise
from lavie.samplers.schedule import Schedule, ScheduleSpec
from lavie.spec import PredictionType, Size, Spec
from lavie.stages.base import OnStep, Request, Stage, StageSpec


class VideoShape(Spec):
    """Size and rate of the video that a stage makes."""

    num_frames: Annotated[int, Field(ge=1, le=4096)] = 16
    """Frames."""
    height: Size = 320
    """Pixels; a multiple of the autoencoder's factor."""
    width: Size = 512
    """Pixels; a multiple of the autoencoder's factor."""
    fps: Annotated[float, Field(gt=0, le=240)] = 8.0
    """Frames per second of the file that is written."""


@final
class TextToVideo(Stage):
    """Text encoder, denoiser, sampler and autoencoder in a row."""

    def __init__(
        self,
        spec: "TextToVideoSpec",
        *,
        text_encoder: TextEncoder,
        autoencoder: Autoencoder,
        denoiser: Denoiser,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.text_encoder = text_encoder
        self.autoencoder = autoencoder
        self.denoiser = denoiser
        self.schedule: Schedule = spec.schedule.build()
        self.sampler: Sampler = spec.sampler.build(self.schedule)
        self.guidance: Guidance = spec.guidance.build()

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], on_step: OnStep | None = None) -> Float[Tensor, "b c f h w"]:
        """Make one video per request, pixels in [-1, 1], float32 on the CPU."""
        sources = [NoiseSource(request.seed, "base") for request in requests]
        denoise = self.guidance(
            self._denoise([request.prompt for request in requests]),
            self._denoise([request.negative_prompt for request in requests]),
        )
        device = next(self.denoiser.parameters()).device
        initial = batch_noise(sources, "initial")(0, (len(requests), *self.latent_shape())).to(device)
        step = None
        for step in self.sampler.steps(denoise, initial, batch_noise(sources, "step")):
            if on_step is not None:
                on_step(step)
        assert step is not None, "a sampler has at least one step"
        latent = self.sampler.latent(step).to(next(self.autoencoder.parameters()).dtype)
        return self.autoencoder.decode(latent).float().clamp(-1, 1).cpu()

    def num_steps(self) -> int:
        """Return how many steps `on_step` is called for per video."""
        return len(self.sampler.timesteps)

    def unknown_words(self, prompt: str) -> list[str]:
        """Return the words of a prompt that the text encoder does not know or would cut off."""
        return self.text_encoder.lost_words(prompt)

    def latent_shape(self) -> tuple[int, int, int, int]:
        """Return (channels, frames, height, width) of one latent."""
        video, factor = self.spec.video, self.autoencoder.factor
        return self.autoencoder.latent_channels, video.num_frames, video.height // factor, video.width // factor

    def _denoise(self, prompts: list[str]) -> Denoise:
        dtype = next(self.denoiser.parameters()).dtype
        # The text is encoded when first asked for: without guidance the unconditional branch never is.
        cond: list[Conditioning] = []

        def denoise(noisy: Tensor, sigma: float) -> Tensor:
            if not cond:
                cond.append(Conditioning(self.text_encoder.encode(prompts).to(dtype)))
            return make_denoise(self.denoiser, self.schedule, self.spec.prediction_type, cond[0], dtype)(noisy, sigma)

        return denoise


@final
class TextToVideoSpec(StageSpec):
    """Text to video in one latent diffusion run."""

    type: Literal["text_to_video"] = "text_to_video"
    video: VideoShape = VideoShape()
    text_encoder: TextEncoderSpec
    """Turns prompts into context for the denoiser."""
    autoencoder: AutoencoderSpec
    """Turns latents into pixels."""
    schedule: ScheduleSpec
    """Noise levels that the denoiser was trained on."""
    prediction_type: PredictionType = "epsilon"
    """What the denoiser predicts."""
    sampler: SamplerSpec
    """The solver and its time grid."""
    guidance: GuidanceSpec
    """How conditional and unconditional predictions are combined."""
    denoiser: DenoiserSpec
    """The network."""

    @model_validator(mode="after")
    def _prediction_fits(self) -> Self:
        check_prediction(self.schedule.build(), self.prediction_type)
        return self

    def build(self) -> TextToVideo:
        """Build the stage with fresh weights.

        Raises:
            ValueError: if widths or sizes of the parts do not fit one another.
        """
        autoencoder = self.autoencoder.build()
        for side in ("height", "width"):
            if (size := getattr(self.video, side)) % autoencoder.factor:
                raise ValueError(
                    f"video.{side}: {size} is no multiple of the autoencoder's factor {autoencoder.factor}"
                )
        return TextToVideo(
            self, text_encoder=self.text_encoder.build(), autoencoder=autoencoder, denoiser=self.denoiser.build()
        )
