"""Sources: what a stage makes of the video that it is given, as inputs of its network's conditioners."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder
from lavie.samplers.noise import NoiseSource
from lavie.spec import Spec
from lavie.stages.base import Given, VideoShape


class Source(ABC):
    """Turns given frames into tensors for conditioners, when a video is made and when a network is trained."""

    stage: str = "base"
    """What the noise of a stage with this source is drawn for: two stages with one seed draw unlike noise."""
    is_required: bool = True
    """Whether there is nothing to be made without a given video."""
    is_framewise: bool = False
    """Whether the inputs of each frame come of that frame alone, so that images can be trained beside clips."""
    sees_pixels: bool = False
    """Whether the network sees given videos as pixels, with whatever another stage's autoencoder did to them."""

    @abstractmethod
    def channels(self, autoencoder: Autoencoder) -> Mapping[str, int]:
        """Return the channels of those inputs that are as large as the latent, by name.

        Raises:
            SpecError: if it does not go with the autoencoder.
        """

    @abstractmethod
    def inputs(
        self, given: Given | None, shape: VideoShape, autoencoder: Autoencoder, noise: NoiseSource
    ) -> Mapping[str, Tensor]:
        """Return the inputs for one video of `shape`, with a batch axis of 1.

        Raises:
            SpecError: if the frames given do not go with the shape.
        """

    @abstractmethod
    def given(self, video: Float[Tensor, "b 3 f h w"], fps: float) -> list[Given]:
        """Return, for each of these videos, what one would give to have it made: to compare the two."""

    @abstractmethod
    def examples(
        self,
        video: Float[Tensor, "b 3 f h w"],
        latent: Float[Tensor, "b c f p q"],
        generator: torch.Generator,
        through: Autoencoder | None = None,
    ) -> Mapping[str, Tensor]:
        """Return inputs that could have led to these videos, to train with.

        If the network sees pixels, half of the given videos pass the autoencoder `through` first.
        """

    def baseline(self, inputs: Mapping[str, Tensor], autoencoder: Autoencoder) -> Float[Tensor, "b c f p q"] | None:
        """Return latents that the inputs tell already, so that only what they lack is made; None without such."""
        return None

    def settle(self, denoised: Float[Tensor, "b c f h w"], inputs: Mapping[str, Tensor]) -> Float[Tensor, "b c f h w"]:
        """Put what the inputs tell for certain in place of what the network took it for."""
        return denoised


class SourceSpec(Spec, ABC):
    """What a stage makes of the video that it is given."""

    kind: ClassVar[str] = "source"

    @abstractmethod
    def shape(self, given: VideoShape, own: VideoShape) -> VideoShape:
        """Return the shape of what is made from a video of shape `given` by a stage whose own shape is `own`."""

    @abstractmethod
    def wanted(self, own: VideoShape) -> VideoShape:
        """Return the shape that a video should have for a stage whose own shape is `own`, its frames being the most."""

    @abstractmethod
    def build(self) -> Source:
        """Build it; it has no parameters."""
