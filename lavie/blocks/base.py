"""What every block knows: its site, its conditioning, and the kinds a UNet is assembled from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from lavie.spec import Spec

Place = int | Literal["mid"]
"""A level of a network, 0 being the finest, or its middle block."""


@dataclass(frozen=True)
class Site:
    """What the host tells a spec when it builds a layer into one place of the network."""

    channels: int
    num_heads: int = 1
    context_dim: int = 0
    time_dim: int = 0
    level: int = 0
    norm_groups: int = 32
    norm_eps: float = 1e-5
    is_mid: bool = False
    """Whether this is the middle block, whose level is the coarsest one."""

    @property
    def place(self) -> Place:
        """Return what the places of a network are told apart by."""
        return "mid" if self.is_mid else self.level


@dataclass(frozen=True)
class Conditioning:
    """The one object that every block receives besides `x`.

    With `num_images` = m > 0 the last m frames of `x` are independent images (joint image-video training, arXiv
    2309.15103 §3.3): `context` is then `b 1+m l d`, slot 0 for the video and one slot for each image, and temporal
    layers must leave those frames out.
    """

    context: Float[Tensor, "b l d"] | Float[Tensor, "b s l d"]
    time_embed: Float[Tensor, " b #f e"] | None = None
    """Embedded timestep; its frame axis is 1 unless a conditioner tells the frames apart."""
    num_images: int = 0
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors for conditioners, by name: `noise_level` (b), `low_res` (b c f h w), ...; five axes mean that."""
    blind: frozenset[Place] = frozenset()
    """Where every token's self-attention inside frames sees nothing but the token (arXiv 2403.17377, §4)."""

    def video_only(self) -> "Conditioning":
        """Return the conditioning of the video frames alone, as if no images rode along."""
        if self.num_images == 0:
            return self
        context = self.context[:, 0] if self.context.ndim == 4 else self.context
        embed = self.time_embed
        if embed is not None and embed.shape[1] > 1:
            embed = embed[:, : -self.num_images]
        inputs = {
            name: each[:, :, : -self.num_images] if each.ndim == 5 else each for name, each in self.inputs.items()
        }
        return replace(self, context=context, time_embed=embed, num_images=0, inputs=inputs)


class TemporalLayer(nn.Module, ABC):
    """A layer that mixes along frames. It returns an update, which the host adds; a fresh one returns exactly 0.

    Hosts call it with the video frames only: images riding along never reach it.
    """

    @abstractmethod
    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Return what is to be added to `x`."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, cond: Conditioning) -> Tensor: ...


class SpatialLayer(nn.Module, ABC):
    """A layer that mixes positions of a frame (or of few frames). It returns an update, which the host adds."""

    place: Place | None = None
    """Set by self-attention that heeds `Conditioning.blind`: where in the network it stands."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Return what is to be added to `x`."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, cond: Conditioning) -> Tensor: ...


class ResBlock(nn.Module, ABC):
    """A residual block. It returns its whole output, not an update, and may change the number of channels."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b out f h w"]:
        """Return the block's output."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, cond: Conditioning) -> Tensor: ...


class Position(nn.Module, ABC):
    """Marks queries and keys with where their tokens stand."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "n k f d"]) -> Float[Tensor, "n k f d"]:
        """Return `x` (queries or keys) with its position along `f` worked in."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...


class Bias(nn.Module, ABC):
    """Something added to the attention logits along frames."""

    @abstractmethod
    def forward(self, num_frames: int) -> Float[Tensor, "k f f"]:
        """Return the bias of every (query frame, key frame) pair, per head."""

    if TYPE_CHECKING:

        def __call__(self, num_frames: int) -> Tensor: ...


class Conditioner(nn.Module, ABC):
    """Brings one extra input into the network: by channels next to `noisy`, or through the time embedding."""

    extra_channels: int = 0
    """Channels that `concat` appends."""

    @abstractmethod
    def concat(self, noisy: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b out f h w"]:
        """Return `noisy`, with this conditioner's channels appended if it has any."""

    @abstractmethod
    def embed(
        self, time_embed: Float[Tensor, " b #f e"], cond: Conditioning, num_frames: int
    ) -> Float[Tensor, " b #f e"]:
        """Return the time embedding, with this conditioner's part worked in if it has one."""


class Denoiser(nn.Module, ABC):
    """The network: predicts noise, velocity or the clean latent from a noisy one."""

    @abstractmethod
    def forward(
        self, noisy: Float[Tensor, "b c f h w"], timestep: Tensor, cond: Conditioning
    ) -> Float[Tensor, "b out f h w"]:
        """Return the raw prediction; `timestep` is `b`, or `b f` where frames differ, in [0, num_train_timesteps)."""

    if TYPE_CHECKING:

        def __call__(self, noisy: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor: ...


class TemporalSpec(Spec, ABC):
    """A layer that mixes along frames, in a transformer or beside one."""

    kind: ClassVar[str] = "temporal"

    @abstractmethod
    def build(self, site: Site) -> TemporalLayer | None:
        """Build the layer for one place; None leaves the slot empty."""


class SpatialSpec(Spec, ABC):
    """The first sublayer of a transformer block: attention inside frames."""

    kind: ClassVar[str] = "spatial"

    @abstractmethod
    def build(self, site: Site) -> SpatialLayer:
        """Build the layer for one place."""


class ResBlockSpec(Spec, ABC):
    """A residual block."""

    kind: ClassVar[str] = "resblock"

    @abstractmethod
    def build(self, site: Site, in_channels: int) -> ResBlock:
        """Build a block from `in_channels` to `site.channels`."""


class PositionSpec(Spec, ABC):
    """Positions worked into queries and keys."""

    kind: ClassVar[str] = "position"

    @abstractmethod
    def build(self, site: Site) -> Position | None:
        """Build it for the heads of one place; None for no positions."""


class BiasSpec(Spec, ABC):
    """A bias on attention logits."""

    kind: ClassVar[str] = "bias"

    @abstractmethod
    def build(self, site: Site) -> Bias | None:
        """Build it for the heads of one place; None for no bias."""


class ConditionerSpec(Spec, ABC):
    """An extra input of the denoiser."""

    kind: ClassVar[str] = "conditioner"

    @abstractmethod
    def build(self, site: Site) -> Conditioner:
        """Build it; `site` carries time_dim and context_dim."""


class DenoiserSpec(Spec, ABC):
    """A whole denoising network."""

    kind: ClassVar[str] = "denoiser"

    @abstractmethod
    def build(self) -> Denoiser:
        """Build the network with fresh weights."""
