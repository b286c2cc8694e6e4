"""Autoencoders: videos to latents and back, frame by frame; here Stable Diffusion's, with a KL posterior."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Annotated, ClassVar, Literal, Self, final

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from lavie.blocks.image_layers import NORM_EPS, Double, Halve, ImageNetwork, Level, Middle
from lavie.blocks.tiling import run_in_tiles
from lavie.spec import Count, Positive, Spec, Width


class Autoencoder(nn.Module, ABC):
    """Turns videos into latents, already multiplied by `scaling_factor`, and back."""

    latent_channels: int
    factor: int
    """Pixels per latent position, along height and along width."""
    scaling_factor: float

    @property
    def anchor(self) -> Tensor:
        """Return a tensor on the device, and of the dtype, that this computes with."""
        return next(chain(self.parameters(), self.buffers()))

    @abstractmethod
    def moments(
        self, video: Float[Tensor, "b 3 f h w"]
    ) -> tuple[Float[Tensor, "b c f p q"], Float[Tensor, "b c f p q"]]:
        """Return mean and log variance of the posterior of a video in [-1, 1], before scaling."""

    @abstractmethod
    def encode(
        self, video: Float[Tensor, "b 3 f h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "b c f p q"]:
        """Return the latent of a video in [-1, 1]: the mode of the posterior, or a draw if given a generator."""

    @abstractmethod
    def decode(self, latent: Float[Tensor, "b c f p q"]) -> Float[Tensor, "b 3 f h w"]:
        """Return the video of a latent, not clamped to [-1, 1]."""


class AutoencoderSpec(Spec, ABC):
    """A pair of networks between pixels and latents."""

    kind: ClassVar[str] = "autoencoder"

    @abstractmethod
    def build(self) -> Autoencoder:
        """Build it with fresh weights."""


@final
class Encoder(ImageNetwork):
    """Images to means and log variances, stacked along channels, before the last 1×1 convolution."""

    def __init__(self, spec: "AutoencoderKLSpec") -> None:
        super().__init__()
        widths, groups = spec.channels, spec.norm_groups
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for index, width in enumerate(widths):
            entry = widths[max(index - 1, 0)]
            resample = Halve(width) if index + 1 < len(widths) else None
            self.down.append(Level((entry,) + (width,) * spec.num_res_blocks, resample, norm_groups=groups))
        self.mid = Middle(widths[-1], norm_groups=groups, attention=spec.attention)
        self.norm_out = nn.GroupNorm(groups, widths[-1], NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * spec.latent_channels, 3, padding=1)

    def parts(self) -> Sequence[Level | Middle]:
        """Return the levels, fine to coarse, then the middle."""
        levels = [level for level in self.down if isinstance(level, Level)]
        return [*levels, self.mid]


@final
class Decoder(ImageNetwork):
    """Latents, after the first 1×1 convolution, to images; `up[0]` is the coarsest level."""

    def __init__(self, spec: "AutoencoderKLSpec") -> None:
        super().__init__()
        widths, groups = spec.channels[::-1], spec.norm_groups
        self.conv_in = nn.Conv2d(spec.latent_channels, widths[0], 3, padding=1)
        self.mid = Middle(widths[0], norm_groups=groups, attention=spec.attention)
        self.up = nn.ModuleList()
        for index, width in enumerate(widths):
            entry = widths[max(index - 1, 0)]
            resample = Double(width) if index + 1 < len(widths) else None
            self.up.append(Level((entry,) + (width,) * (spec.num_res_blocks + 1), resample, norm_groups=groups))
        self.norm_out = nn.GroupNorm(groups, widths[-1], NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def parts(self) -> Sequence[Level | Middle]:
        """Return the middle, then the levels, coarse to fine."""
        levels = [level for level in self.up if isinstance(level, Level)]
        return [self.mid, *levels]


@final
class AutoencoderKL(Autoencoder):
    """Stable Diffusion's image autoencoder (arXiv 2112.10752, §3.1), applied to every frame on its own."""

    def __init__(self, spec: "AutoencoderKLSpec") -> None:
        super().__init__()
        self.latent_channels = spec.latent_channels
        self.factor = 2 ** (len(spec.channels) - 1)
        self.scaling_factor = spec.scaling_factor
        self.decode_chunk = spec.decode_chunk
        self.tile = spec.tile
        self.encoder = Encoder(spec)
        self.quant_conv = nn.Conv2d(2 * spec.latent_channels, 2 * spec.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(spec.latent_channels, spec.latent_channels, 1)
        self.decoder = Decoder(spec)

    def moments(
        self, video: Float[Tensor, "b 3 f h w"]
    ) -> tuple[Float[Tensor, "b c f p q"], Float[Tensor, "b c f p q"]]:
        """Return mean and log variance of the posterior of a video in [-1, 1], before scaling.

        The log variance is clamped to [-30, 20].

        Raises:
            ValueError: if height or width is no multiple of `factor`.
        """
        height, width = video.shape[3:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"a video of {height}x{width} pixels: both must be multiples of {self.factor}")
        moments = self._by_frames(lambda images: self.quant_conv(self._run(self.encoder, images)), video)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def encode(
        self, video: Float[Tensor, "b 3 f h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "b c f p q"]:
        """Return the latent of a video in [-1, 1]: the mode of the posterior, or a draw if given a generator.

        A draw is mean + σ·noise (arXiv 1312.6114, §2.4); the noise comes from the generator's device.

        Raises:
            ValueError: if height or width is no multiple of `factor`.
        """
        latent, log_variance = self.moments(video)
        if generator is not None:
            noise = torch.randn(latent.shape, generator=generator, device=generator.device)
            latent = latent + torch.exp(0.5 * log_variance) * noise.to(latent)
        return latent * self.scaling_factor

    def decode(self, latent: Float[Tensor, "b c f p q"]) -> Float[Tensor, "b 3 f h w"]:
        """Return the video of a latent, not clamped to [-1, 1]."""
        return self._by_frames(
            lambda latents: self._run(self.decoder, self.post_quant_conv(latents)), latent / self.scaling_factor
        )

    def _run(self, network: ImageNetwork, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out p q"]:
        """Run an image network, in tiles if asked for; with gradients all activations are kept anyway."""
        if self.tile is None or torch.is_grad_enabled():
            return network(images)
        return run_in_tiles(network, images, self.tile)

    def _by_frames(
        self, network: Callable[[Tensor], Tensor], x: Float[Tensor, "b c f h w"]
    ) -> Float[Tensor, "b out f p q"]:
        """Apply an image network to every frame, a few at a time: a bound on memory, and the same numbers.

        With gradients all activations are kept anyway, so all frames go at once.
        """
        frames = rearrange(x, "b c f h w -> (b f) c h w").contiguous(memory_format=torch.channels_last)
        at_once = max(len(frames), 1) if torch.is_grad_enabled() else self.decode_chunk
        out = torch.cat([network(chunk) for chunk in torch.split(frames, at_once)])
        return rearrange(out, "(b f) c h w -> b c f h w", f=x.shape[2])


@final
class AutoencoderKLSpec(AutoencoderSpec):
    """The autoencoder of Stable Diffusion; the defaults are version 1.4's."""

    type: Literal["kl"] = "kl"
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (128, 256, 512, 512)
    """Channels of each level, finest first; each level after the first halves height and width."""
    num_res_blocks: Count = 2
    """Residual blocks of a level of the encoder; the decoder has one more."""
    latent_channels: Width = 4
    """Channels of the latent."""
    scaling_factor: Positive = 0.18215
    """Factor between the posterior and the latent that the denoiser sees; brings its standard deviation near 1."""
    norm_groups: Count = 32
    """Groups of every group norm; divides all channels."""
    attention: bool = True
    """Whether the middle of encoder and decoder has self-attention."""
    decode_chunk: Count = 1
    """Frames encoded or decoded at a time without gradients; more need more memory, the result is the same."""
    tile: Annotated[int, Field(ge=8, le=16384)] | None = None
    """Rows and columns of features that a layer works on at a time without gradients: less memory, more time, the same
    result; left out: all of them."""

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> Self:
        for width in self.channels:
            if width % self.norm_groups:
                raise ValueError(f"channels: {width} cannot be split into norm_groups = {self.norm_groups} groups")
        return self

    def build(self) -> AutoencoderKL:
        """Build it with fresh weights."""
        return AutoencoderKL(self)
