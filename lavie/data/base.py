"""What every dataset gives: numbered clips with a caption and labels that say what is to be seen."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from lavie.spec import Spec


@dataclass(frozen=True)
class Clip:
    """One video with its words; an image is a clip of one frame."""

    video: Float[Tensor, "c f h w"]
    """Pixels in [-1, 1]."""
    caption: str
    fps: float
    """Frames per second."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What is to be seen, by attribute; the caption may say less."""


class Dataset(ABC):
    """Numbered clips: the same spec and index give the same clip, whatever was asked for before."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many clips there are."""

    @abstractmethod
    def clip(self, index: int) -> Clip:
        """Return one clip.

        Raises:
            IndexError: if `index` is not in [0, len).
        """


class DatasetSpec(Spec, ABC):
    """Where clips come from."""

    kind: ClassVar[str] = "dataset"

    @abstractmethod
    def build(self) -> Dataset:
        """Open the dataset."""
