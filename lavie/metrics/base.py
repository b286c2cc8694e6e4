"""What every metric does: take videos in, batch by batch, and give numbers at the end."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from lavie.spec import Spec


class Metric(ABC):
    """A measurement over many videos."""

    @abstractmethod
    def update(self, video: Float[Tensor, "b c f h w"], labels: Sequence[Mapping[str, str]]) -> None:
        """Take in a batch of videos in [-1, 1], each with the labels of what it should show."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the numbers over everything taken in so far."""


class MetricSpec(Spec, ABC):
    """A measurement over many videos."""

    kind: ClassVar[str] = "metric"

    @abstractmethod
    def build(self) -> Metric:
        """Return the metric with nothing taken in yet."""
