"""The time embedding, and conditioners: extra inputs that join by channels or through the time embedding."""

import math
from typing import Annotated, Literal, final

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Num
from pydantic import Field
from torch import Tensor, nn

from lavie.blocks.base import Conditioner, ConditionerSpec, Conditioning, Site
from lavie.blocks.embedding import normal_embedding
from lavie.spec import Count, Width


def sinusoidal_features(values: Num[Tensor, "*b"], dim: int) -> Float[Tensor, "*b d"]:
    """Return [cos(v·ω), sin(v·ω)] with ω_k = 10000^(-2k/dim), cosines first, in float32 (arXiv 1706.03762, §3.5).

    Multiplied before divided, as the official code does: the order moves the last bit of ω, and v is up to 1000.
    """
    half = dim // 2
    exponents = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=values.device) / half
    frequencies = torch.exp(exponents)
    angles = values.float()[..., None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


@final
class TimeEmbedding(nn.Module):
    """Turn a timestep into an embedding: sinusoidal features, then two linear layers with a SiLU between."""

    def __init__(self, dim: int, time_dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.expand = nn.Linear(dim, time_dim)
        self.mix = nn.Linear(time_dim, time_dim)

    def forward(self, timestep: Num[Tensor, " b"] | Num[Tensor, "b f"]) -> Float[Tensor, "b s e"]:
        """Embed one timestep per sample, for all frames, or one per frame."""
        features = sinusoidal_features(timestep, self.dim).to(self.expand.weight.dtype)
        embedded = self.mix(F.silu(self.expand(features)))
        return embedded if timestep.ndim == 2 else embedded.unsqueeze(1)


def required(cond: Conditioning, name: str) -> Tensor:
    """Return an input that a conditioner cannot do without.

    Raises:
        ValueError: naming the input and those that were given.
    """
    if name not in cond.inputs:
        raise ValueError(f"the network needs the input {name!r}; given: {', '.join(cond.inputs) or 'none'}")
    return cond.inputs[name]


class EmbeddingConditioner(Conditioner):
    """A conditioner that leaves the channels alone."""

    @final
    def concat(self, noisy: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Return `noisy` as it is."""
        return noisy


@final
class ConcatConditioner(Conditioner):
    """Appends a tensor of the latent's size to the channels, after the noisy latent."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        self.name = name
        self.extra_channels = channels

    def concat(self, noisy: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b out f h w"]:
        """Return [noisy, input] along channels.

        Raises:
            ValueError: if the input has another number of channels, frames or positions than is due.
        """
        given, due = required(cond, self.name), (len(noisy), self.extra_channels, *noisy.shape[2:])
        if given.shape != due:
            raise ValueError(f"the input {self.name!r} has the shape {tuple(given.shape)}, {due} is due")
        return torch.cat((noisy, given.to(noisy.dtype)), dim=1)

    def embed(self, time_embed: Float[Tensor, "b s e"], cond: Conditioning, num_frames: int) -> Float[Tensor, "b s e"]:
        """Leave the time embedding alone."""
        return time_embed


@final
class NoiseLevelConditioner(EmbeddingConditioner):
    """Adds a learned embedding of how much the low-resolution input was noised (arXiv 2106.15282, §4)."""

    def __init__(self, time_dim: int, *, num_levels: int, max_level: int) -> None:
        super().__init__()
        self.max_level = max_level
        self.table = normal_embedding(num_levels, time_dim)

    def embed(self, time_embed: Float[Tensor, "b s e"], cond: Conditioning, num_frames: int) -> Float[Tensor, "b s e"]:
        """Add the row of each sample's noise level.

        Raises:
            ValueError: if a level is outside [0, max_level].
        """
        level = required(cond, "noise_level")
        can_look = not (level.is_meta or torch.compiler.is_compiling())
        if can_look and bool(((level < 0) | (level > self.max_level)).any()):
            raise ValueError(f"noise_level must be in [0, {self.max_level}], got {level.tolist()}")
        return time_embed + self.table(level).unsqueeze(1)


@final
class PooledTextConditioner(EmbeddingConditioner):
    """Adds a projection of the mean text token, so that every residual block knows what is asked for."""

    def __init__(self, context_dim: int, time_dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(context_dim, time_dim)
        self.mix = nn.Linear(time_dim, time_dim)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def embed(self, time_embed: Float[Tensor, "b s e"], cond: Conditioning, num_frames: int) -> Float[Tensor, "b s2 e"]:
        """Add the pooled text of the video to its frames, and of each image to itself."""
        pooled = self.mix(F.silu(self.expand(cond.context.mean(dim=-2))))
        if pooled.ndim == 2:
            return time_embed + pooled.unsqueeze(1)
        video = pooled[:, :1].expand(-1, num_frames - cond.num_images, -1)
        return time_embed + torch.cat((video, pooled[:, 1:]), dim=1)


@final
class FrameIndexConditioner(EmbeddingConditioner):
    """Tells the frames of a video apart: mixes each frame's place in the video into its embedding.

    Relative positions cannot: at high noise, all frames look alike to attention that only knows distances, and
    "moving left" and "moving right" have the same answer. Images riding along get no place.
    """

    def __init__(self, time_dim: int, *, dim: int, num_places: int) -> None:
        super().__init__()
        self.dim, self.num_places = dim, num_places
        self.place = nn.Linear(dim, time_dim)
        self.expand = nn.Linear(time_dim, time_dim)
        self.mix = nn.Linear(time_dim, time_dim)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def embed(self, time_embed: Float[Tensor, "b s e"], cond: Conditioning, num_frames: int) -> Float[Tensor, "b s2 e"]:
        """Add a learned product of (embedding so far, place in the video) to the embedding of every video frame.

        A product, because which way a thing moves is one: "left" means the right side at first and the left side at
        last.
        The input `frame_places` says where in a longer video the frames lie, from 0 to 1; without it, all of it.
        """
        num_video = num_frames - cond.num_images
        if num_video == 0:
            return time_embed
        places = torch.linspace(0, self.num_places - 1, num_video, device=time_embed.device)
        if "frame_places" in cond.inputs:
            places = cond.inputs["frame_places"].to(places) * (self.num_places - 1)
        place = self.place(sinusoidal_features(places, self.dim).to(time_embed.dtype))
        video = time_embed if time_embed.shape[1] == 1 else time_embed[:, :num_video]
        video = video + self.mix(self.expand(F.silu(video)) * place)
        if cond.num_images == 0:
            return video
        images = time_embed if time_embed.shape[1] == 1 else time_embed[:, num_video:]
        return torch.cat((video, images.expand(-1, cond.num_images, -1)), dim=1)


@final
class ConcatSpec(ConditionerSpec):
    """Frames concatenated to the noisy latent along channels."""

    type: Literal["concat"] = "concat"
    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_]*$")] = "frames"
    """Which input is concatenated: `frames` for key-frame latents, `low_res` for a low-resolution video."""
    channels: Width = 4
    """Channels of that input."""

    def build(self, site: Site) -> ConcatConditioner:
        """Build it; it has no parameters, but widens the network's first convolution."""
        return ConcatConditioner(self.name, self.channels)


@final
class NoiseLevelSpec(ConditionerSpec):
    """How much the low-resolution video was noised, as a learned embedding."""

    type: Literal["noise_level"] = "noise_level"
    num_levels: Count = 1000
    """Rows of the table."""
    max_level: Annotated[int, Field(ge=0, le=4096)] = 350
    """Highest level that may be asked for."""

    def build(self, site: Site) -> NoiseLevelConditioner:
        """Build the table at the width of the time embedding."""
        return NoiseLevelConditioner(site.time_dim, num_levels=self.num_levels, max_level=self.max_level)


@final
class PooledTextSpec(ConditionerSpec):
    """The mean text token, added to the time embedding."""

    type: Literal["pooled_text"] = "pooled_text"

    def build(self, site: Site) -> PooledTextConditioner:
        """Build it between the host's context and time widths."""
        return PooledTextConditioner(site.context_dim, site.time_dim)


@final
class FrameIndexSpec(ConditionerSpec):
    """Each frame's index in the video, mixed into its time embedding."""

    type: Literal["frame_index"] = "frame_index"
    dim: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] = 64
    """Sinusoidal features of the place."""
    num_places: Count = 16
    """Places that the frames of a video are spread over, first to last, however many they are."""

    def build(self, site: Site) -> FrameIndexConditioner:
        """Build it at the width of the time embedding."""
        return FrameIndexConditioner(site.time_dim, dim=self.dim, num_places=self.num_places)
