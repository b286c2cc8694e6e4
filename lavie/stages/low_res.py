"""A low-resolution video beside the latent: super-resolution."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, final

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange, repeat
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder
from lavie.errors import Fault, SpecError
from lavie.samplers.noise import NoiseSource, batch_noise
from lavie.samplers.prediction import add_noise
from lavie.samplers.schedule import ScheduleSpec
from lavie.stages.base import MAX_FRAMES, Given, VideoShape
from lavie.stages.lazy_video import PixelVideo
from lavie.stages.source import Source, SourceSpec


@final
class LowRes(Source):
    """The given video itself, noised a little, at the resolution of the latent (arXiv 2309.15103, §3.4)."""

    stage = "upscaling"
    is_framewise = True
    sees_pixels = True

    def __init__(self, spec: "LowResSpec") -> None:
        self.spec = spec
        self.schedule = spec.schedule.build()

    def channels(self, autoencoder: Autoencoder) -> Mapping[str, int]:
        """Return those of `low_res`: red, green and blue.

        Raises:
            SpecError: if the video grows by another factor than the autoencoder's.
        """
        if autoencoder.factor != self.spec.factor:
            reason = f"the video grows by {self.spec.factor}, but the autoencoder's factor is {autoencoder.factor}"
            raise SpecError([Fault("source.factor", f"{reason}: the low-resolution video would not fit the latent")])
        return {"low_res": 3}

    def inputs(
        self, given: Given | None, shape: VideoShape, autoencoder: Autoencoder, noise: NoiseSource
    ) -> Mapping[str, Tensor]:
        """Return `low_res`, the noised video, and `noise_level`, how noised it is."""
        assert given is not None, "the stage refuses requests without what it requires"
        weight = autoencoder.anchor
        video = given.video.video()
        drawn = batch_noise([noise], "low_res")(0, tuple(video.shape))
        noised = add_noise(video, drawn, self._sigma(self.spec.noise_level), self.schedule).to(weight)
        return {"low_res": noised, "noise_level": torch.tensor([self.spec.noise_level], device=weight.device)}

    def given(self, video: Float[Tensor, "b 3 f h w"], fps: float) -> list[Given]:
        """Return the videos at low resolution."""
        return [Given(each) for each in PixelVideo(self._small(video), fps).split()]

    def examples(
        self,
        video: Float[Tensor, "b 3 f h w"],
        latent: Float[Tensor, "b c f p q"],
        generator: torch.Generator,
        through: Autoencoder | None = None,
    ) -> Mapping[str, Tensor]:
        """Return these videos at low resolution, each blurred and noised as much as is drawn evenly up to the most.

        Half of them pass the autoencoder `through` in place of the blur.
        """
        levels = torch.randint(self.spec.max_noise_level + 1, (len(video),), generator=generator)
        small = low_res = self._small(video)
        if self.spec.max_blur:
            spreads = self.spec.max_blur * torch.rand(len(video), generator=generator)
            low_res = blurred(small, spreads.to(small))
        if through is not None:
            passes = rearrange(torch.rand(len(video), generator=generator) < 0.5, "b -> b 1 1 1 1").to(small.device)
            low_res = torch.where(passes, through.decode(through.encode(small)).clamp(-1, 1), low_res)
        drawn = torch.randn(low_res.shape, generator=generator).to(low_res)
        sigmas = torch.stack([torch.tensor(self._sigma(level)) for level in levels.tolist()])
        return {
            "low_res": add_noise(low_res, drawn, sigmas, self.schedule),
            "noise_level": levels.to(video.device),
        }

    def baseline(self, inputs: Mapping[str, Tensor], autoencoder: Autoencoder) -> Float[Tensor, "b c f p q"] | None:
        """Return the latents of the enlarged low-resolution videos, as noised as they are, if residuals are made."""
        if not self.spec.residual:
            return None
        low_res = inputs["low_res"]
        sigmas = self.schedule.sigmas.to(low_res)[inputs["noise_level"].to(low_res.device)]
        frames = rearrange(low_res, "b c f h w -> (b f) c h w")
        large = F.interpolate(frames, scale_factor=float(self.spec.factor), mode="bicubic")
        video = rearrange(large, "(b f) c h w -> b c f h w", b=len(low_res))
        faded = rearrange((1 + sigmas**2).sqrt(), "b -> b 1 1 1 1")  # noising a video has shrunk it
        return autoencoder.encode(video * faded)

    def _small(self, video: Float[Tensor, "b 3 f h w"]) -> Float[Tensor, "b 3 f p q"]:
        frames = rearrange(video, "b c f h w -> (b f) c h w")
        small = F.interpolate(frames, scale_factor=1 / self.spec.factor, mode="area")
        return rearrange(small, "(b f) c h w -> b c f h w", b=len(video))

    def _sigma(self, level: int) -> float:
        return float(self.schedule.sigmas[level])


def blurred(video: Float[Tensor, "b c f h w"], spreads: Float[Tensor, " b"]) -> Float[Tensor, "b c f h w"]:
    """Blur the frames of each video with a Gaussian of its own standard deviation, in pixels (up to about 2)."""
    reach = 4
    at = torch.arange(-reach, reach + 1).to(spreads)
    weights = torch.exp(-(at**2) / (2 * spreads.clamp(min=1e-3)[:, None] ** 2))
    weights = repeat(weights / weights.sum(dim=1, keepdim=True), "b n -> (b c) 1 n", c=video.shape[1])
    x = rearrange(video, "b c f h w -> f (b c) h w")
    x = F.pad(x, (reach,) * 4, mode="replicate")
    x = F.conv2d(x, weights[:, :, None, :], groups=len(weights))
    x = F.conv2d(x, weights[:, :, :, None], groups=len(weights))
    return rearrange(x, "f (b c) h w -> b c f h w", b=len(video))


@final
class LowResSpec(SourceSpec):
    """The given video at low resolution; conditioners `concat` of the name `low_res` and `noise_level` take it."""

    type: Literal["low_res"] = "low_res"
    factor: Annotated[int, Field(ge=1, le=64)] = 4
    """How many times as high and as wide the result is; also the autoencoder's factor."""
    noise_level: Annotated[int, Field(ge=0, le=999)] = 50
    """How much the low-resolution video is noised: more hides its flaws, and invents more."""
    max_noise_level: Annotated[int, Field(ge=0, le=999)] = 350
    """The highest level that training shows."""
    max_blur: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Standard deviation in pixels of the strongest blur that training shows: an earlier stage's pictures are softer
    than videos that were made small (arXiv 2106.15282, §4.2)."""
    residual: bool = False
    """Make only what the enlarged video lacks; its colours then stay as they are (arXiv 2104.14951, §3.2)."""
    schedule: ScheduleSpec
    """Noise levels of the low-resolution video."""

    @model_validator(mode="after")
    def _is_within_training(self) -> Self:
        if self.noise_level > self.max_noise_level:
            raise ValueError(f"noise_level: {self.noise_level} is above max_noise_level, {self.max_noise_level}")
        return self

    def shape(self, given: VideoShape, own: VideoShape) -> VideoShape:
        """Return the given shape, larger by the factor.

        Raises:
            SpecError: if that is too large.
        """
        return given.changed(height=given.height * self.factor, width=given.width * self.factor)

    def wanted(self, own: VideoShape) -> VideoShape:
        """Return the own size, smaller by the factor, for any number of frames."""
        size = {"height": own.height // self.factor, "width": own.width // self.factor}
        return own.model_copy(update={"num_frames": MAX_FRAMES, **size})

    def build(self) -> LowRes:
        """Build it."""
        return LowRes(self)
