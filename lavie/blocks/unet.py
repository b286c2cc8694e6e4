"""The UNet of every stage: one class, whose spec says as data where each layer sits and what differs by level."""

from dataclasses import replace
from typing import Annotated, Any, Literal, Self, final

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Num
from pydantic import Field, model_validator
from torch import Tensor, nn

from lavie.blocks.base import (
    Conditioner,
    ConditionerSpec,
    Conditioning,
    Denoiser,
    DenoiserSpec,
    ResBlock,
    ResBlockSpec,
    Site,
    TemporalLayer,
    TemporalSpec,
)
from lavie.blocks.conditioning import TimeEmbedding
from lavie.blocks.free_u import FreeUSpec
from lavie.blocks.layout import Join, join_channels
from lavie.blocks.resample import Downsample, Upsample
from lavie.blocks.resnet import InflatedConv, InflatedResBlockSpec, JointGroupNorm
from lavie.blocks.temporal import NoTemporalSpec
from lavie.blocks.transformer import Transformer, TransformerSpec, update_video
from lavie.spec import Count, PerLevel, Positive, Spec, Width, check_levels


def use_channels_last(network: nn.Module) -> None:
    """Lay out convolution weights as the activations are, so that no call has to do it.

    To be repeated wherever tensors of a file take the place of a network's own.
    """
    for parameter in network.parameters():
        if parameter.ndim in (4, 5):
            order = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=order)


@final
class Layer(nn.Module):
    """A residual block and the transformer after it, if this level has one."""

    def __init__(self, resblock: ResBlock, transformer: Transformer | None) -> None:
        super().__init__()
        self.resblock = resblock
        self.transformer = transformer

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b out f h w"]:
        """Run both."""
        x = self.resblock(x, cond)
        return x if self.transformer is None else self.transformer(x, cond)


@final
class DownLevel(nn.Module):
    """One level on the way down: its layers, then a downsampler, then a temporal layer outside the skips."""

    def __init__(self, layers: list[Layer], resample: Downsample | None, after: TemporalLayer | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.resample = resample
        self.after = after

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning, skips: list[Tensor]) -> Tensor:
        """Return what flows on, having appended every skip of this level to `skips`."""
        for layer in self.layers:
            x = layer(x, cond)
            skips.append(x)
        if self.resample is not None:
            x = self.resample(x)
            skips.append(x)
        return x if self.after is None else update_video(x, self.after, cond)


@final
class MidLevel(nn.Module):
    """The middle: a layer, a residual block, and a temporal layer after them."""

    def __init__(self, layer: Layer, resblock: ResBlock, after: TemporalLayer | None) -> None:
        super().__init__()
        self.layer = layer
        self.resblock = resblock
        self.after = after

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Run them in order."""
        x = self.resblock(self.layer(x, cond), cond)
        return x if self.after is None else update_video(x, self.after, cond)


@final
class UpLevel(nn.Module):
    """One level on the way up: layers that each take one skip, then an upsampler, then a temporal layer."""

    def __init__(self, layers: list[Layer], resample: Upsample | None, after: TemporalLayer | None, join: Join) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.resample = resample
        self.after = after
        self.join = join

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning, skips: list[Tensor]) -> Tensor:
        """Consume skips from the end of `skips`, each appended to the channels."""
        for layer in self.layers:
            x = layer(self.join(x, skips.pop()), cond)
        if self.resample is not None:
            x = self.resample(x, *skips[-1].shape[-2:])
        return x if self.after is None else update_video(x, self.after, cond)


@final
class UNet3D(Denoiser):
    """A 2D latent-diffusion UNet inflated to video, with temporal layers wherever its spec puts them."""

    def __init__(
        self,
        conv_in: InflatedConv,
        time_embedding: TimeEmbedding,
        conditioners: list[Conditioner],
        levels: tuple[list[DownLevel], MidLevel, list[UpLevel]],
        tail: tuple[JointGroupNorm, InflatedConv],
    ) -> None:
        super().__init__()
        self.conv_in = conv_in
        self.time_embedding = time_embedding
        self.conditioners = nn.ModuleList(conditioners)
        self.down = nn.ModuleList(levels[0])
        self.mid = levels[1]
        self.up = nn.ModuleList(levels[2])
        self.norm_out, self.conv_out = tail

    def forward(
        self, noisy: Float[Tensor, "b c f h w"], timestep: Num[Tensor, " b"] | Num[Tensor, "b f"], cond: Conditioning
    ) -> Float[Tensor, "b out f h w"]:
        """Predict from a noisy latent; `timestep` is in [0, num_train_timesteps)."""
        time_embed = self.time_embedding(timestep)
        for conditioner in self.conditioners:
            assert isinstance(conditioner, Conditioner)
            noisy = conditioner.concat(noisy, cond)
            time_embed = conditioner.embed(time_embed, cond, noisy.shape[2])
        cond = replace(cond, time_embed=time_embed)
        x = self.conv_in(noisy.contiguous(memory_format=torch.channels_last_3d))
        skips = [x]
        for level in self.down:
            x = level(x, cond, skips)
        x = self.mid(x, cond)
        for level in self.up:
            x = level(x, cond, skips)
        return self.conv_out(F.silu(self.norm_out(x)))


class NormSpec(Spec):
    """The group norms of a network."""

    groups: Count = 32
    """Groups of every group norm, unless a temporal part brings its own."""
    eps: Positive = 1e-5
    """Epsilon of the norms outside transformers."""


@final
class UNetSpec(DenoiserSpec):
    """A video UNet: levels from fine to coarse, each with residual blocks, transformers and temporal layers."""

    type: Literal["unet"] = "unet"
    in_channels: Width = 4
    """Channels of the noisy latent; conditioners that concatenate add theirs."""
    out_channels: Width = 4
    """Channels of the prediction."""
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)] = (320, 640, 1280, 1280)
    """Width of every level, finest first; each level but the last halves height and width."""
    attention: PerLevel[bool] = PerLevel[bool](levels=(True, True, True, False), mid=True)
    """Which levels have transformers."""
    num_res_blocks: Annotated[int, Field(ge=1, le=64)] = 2
    """Residual blocks per level on the way down; one more on the way up."""
    context_dim: Width = 768
    """Width of the text tokens."""
    norm: NormSpec = NormSpec()
    resblock: PerLevel[ResBlockSpec] = PerLevel[ResBlockSpec](everywhere=InflatedResBlockSpec())
    """The residual blocks."""
    transformer: TransformerSpec = TransformerSpec()
    """What stands inside the transformers."""
    after_level: PerLevel[TemporalSpec] = PerLevel[TemporalSpec](everywhere=NoTemporalSpec())
    """A temporal layer after each level and its resampler; skips are taken before it."""
    conditioners: Annotated[tuple[ConditionerSpec, ...], Field(max_length=16)] = ()
    """Extra inputs, applied in this order."""
    free_u: FreeUSpec | None = None
    """Scaling of the way up at sampling time; left out: none, as the network was trained."""

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        parts: dict[str, PerLevel[Any]] = {
            "attention": self.attention,
            "resblock": self.resblock,
            "after_level": self.after_level,
            "transformer.num_heads": self.transformer.num_heads,
            "transformer.spatial": self.transformer.spatial,
            "transformer.temporal": self.transformer.temporal,
            "transformer.before": self.transformer.before,
        }
        for path, value in parts.items():
            check_levels(path, value, len(self.channels))
        return self

    def build(self) -> UNet3D:
        """Build the network with fresh weights."""
        conditioners = [conditioner.build(self._site(0)) for conditioner in self.conditioners]
        in_channels = self.in_channels + sum(conditioner.extra_channels for conditioner in conditioners)
        first = self.channels[0]
        network = UNet3D(
            InflatedConv(in_channels, first),
            TimeEmbedding(first, self._site(0).time_dim),
            conditioners,
            (self._build_down(), self._build_mid(), self._build_up()),
            (JointGroupNorm(self.norm.groups, first, self.norm.eps), InflatedConv(first, self.out_channels)),
        )
        use_channels_last(network)
        return network

    def _site(self, level: int | None) -> Site:
        heads = self.transformer.num_heads
        return Site(
            channels=self.channels[-1 if level is None else level],
            num_heads=heads.at_mid() if level is None else heads.at(level),
            context_dim=self.context_dim,
            time_dim=4 * self.channels[0],
            level=len(self.channels) - 1 if level is None else level,
            norm_groups=self.norm.groups,
            norm_eps=self.norm.eps,
            is_mid=level is None,
        )

    def _layer(self, level: int | None, in_channels: int) -> Layer:
        site = self._site(level)
        has_transformer = self.attention.at_mid() if level is None else self.attention.at(level)
        transformer = self.transformer.build(site, level) if has_transformer else None
        return Layer(self._resblock(level, in_channels), transformer)

    def _resblock(self, level: int | None, in_channels: int) -> ResBlock:
        spec = self.resblock.at_mid() if level is None else self.resblock.at(level)
        return spec.build(self._site(level), in_channels)

    def _after(self, level: int | None) -> TemporalLayer | None:
        spec = self.after_level.at_mid() if level is None else self.after_level.at(level)
        return spec.build(self._site(level))

    def _build_down(self) -> list[DownLevel]:
        levels = []
        previous = self.channels[0]
        for level, channels in enumerate(self.channels):
            layers = [self._layer(level, previous if i == 0 else channels) for i in range(self.num_res_blocks)]
            resample = Downsample(channels) if level < len(self.channels) - 1 else None
            levels.append(DownLevel(layers, resample, self._after(level)))
            previous = channels
        return levels

    def _build_mid(self) -> MidLevel:
        coarsest = self.channels[-1]
        return MidLevel(self._layer(None, coarsest), self._resblock(None, coarsest), self._after(None))

    def _build_up(self) -> list[UpLevel]:
        levels: list[UpLevel] = []
        previous = self.channels[-1]
        for level in reversed(range(len(self.channels))):
            channels, finer = self.channels[level], self.channels[max(level - 1, 0)]
            skips = [channels] * self.num_res_blocks + [finer]
            layers = [self._layer(level, (previous if i == 0 else channels) + skip) for i, skip in enumerate(skips)]
            join = join_channels if self.free_u is None else self.free_u.join(len(levels))
            levels.append(UpLevel(layers, Upsample(channels) if level else None, self._after(level), join))
            previous = channels
        return levels
