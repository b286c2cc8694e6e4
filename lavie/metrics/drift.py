"""How far a long video drifts from its beginning: colour, sharpness and identity, segment by segment."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, final

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from lavie.metrics.base import Metric, MetricSpec
from lavie.spec import Count

_GREY_LEVELS = 127.5
"""Of 8-bit video, in one unit of pixels."""
_SHADES = 8
"""Bins of each of red, green and blue."""
_DIRECTIONS = 8
"""Bins of the direction of edges, over half a turn."""
_GREY_LEVEL = 1 / _GREY_LEVELS


@final
class DriftSpec(MetricSpec):
    """How far segments of a video are from its first one: mean colour, sharpness, and a fixed measure of identity.

    Identity is no learned one: it compares how much of each colour and of edges of each direction there is, wherever
    in the frame. So things may move, but not change colour or shape.
    """

    type: Literal["drift"] = "drift"
    segment: Count = 16
    """Frames of a segment, at least: a video is cut into as many equal parts as are that long."""

    def build(self) -> "Drift":
        """Return the metric with nothing taken in yet."""
        return Drift(self)


@final
class Drift(Metric):
    """Means over videos, for every segment but the first."""

    def __init__(self, spec: DriftSpec) -> None:
        self.spec = spec
        self._values: dict[str, list[float]] = defaultdict(list)
        self._count = 0

    def update(self, video: Float[Tensor, "b 3 f h w"], labels: Sequence[Mapping[str, str]] = ()) -> None:
        """Take in a batch; labels do not matter.

        Raises:
            ValueError: if a video is shorter than two segments.
        """
        if (count := video.shape[2] // self.spec.segment) < 2:
            length = f"{video.shape[2]} frames are no two segments of {self.spec.segment}"
            raise ValueError(f"{length}; drift is between segments, so make them shorter")
        for one in video.detach().to("cpu", torch.float32):
            first, *others = torch.tensor_split(one, count, dim=1)
            for number, other in enumerate(others, start=2):
                for name, value in drift(other, first).items():
                    self._values[f"{name}_{number}"].append(value)
        self._count += len(video)

    def compute(self) -> dict[str, float]:
        """Return `colour_k`, `sharpness_k` and `identity_k` for k from 2, see `drift`, and the `count` of videos."""
        means = {name: sum(values) / len(values) for name, values in self._values.items()}
        return {**means, "count": float(self._count)}


def drift(segment: Float[Tensor, "3 f h w"], first: Float[Tensor, "3 g h w"]) -> dict[str, float]:
    """Return how far a segment is from the first one; 0 of each is not at all.

    `colour`: root mean square difference of the mean red, green and blue, in grey levels of 255. `sharpness`: by how
    many octaves the mean length of gradients has grown (softened by one grey level, since flat frames have none).
    `identity`: Hellinger distance, in [0, 1], mean of that between colour histograms and that between histograms of
    edge directions.
    """
    means = [reduce(each, "c f h w -> c", "mean") for each in (segment, first)]
    (edges, its), (first_edges, its_first) = (_edges(each) for each in (segment, first))
    sharpness = torch.log2((edges + _GREY_LEVEL) / (first_edges + _GREY_LEVEL))
    shades = _hellinger(_shades(segment), _shades(first))
    return {
        "colour": float((means[0] - means[1]).square().mean().sqrt() * _GREY_LEVELS),
        "sharpness": float(sharpness),
        "identity": float((shades + _hellinger(its, its_first)) / 2),
    }


def _edges(video: Float[Tensor, "3 f h w"]) -> tuple[Float[Tensor, ""], Float[Tensor, " n"]]:
    """Return the mean length of brightness gradients, and how it is spread over directions."""
    grey = video.mean(dim=0)
    down, right = (each[:, 1:-1, 1:-1] for each in torch.gradient(grey, dim=(1, 2)))
    length = torch.hypot(down, right)
    turn = (torch.atan2(down, right) / torch.pi).remainder(1) * _DIRECTIONS
    # A direction between two bins counts in both, so that rounding does not move edges from bin to bin.
    below, share = turn.floor().long() % _DIRECTIONS, turn.frac()
    spread = torch.full((_DIRECTIONS,), 1e-9)
    spread.index_add_(0, below.flatten(), (length * (1 - share)).flatten())
    spread.index_add_(0, (below.flatten() + 1) % _DIRECTIONS, (length * share).flatten())
    return length.mean(), spread / spread.sum()


def _shades(video: Float[Tensor, "3 f h w"]) -> Float[Tensor, " n"]:
    """Return how much of each colour there is."""
    bins = ((video.clamp(-1, 1) + 1) / 2 * _SHADES).long().clamp(max=_SHADES - 1)
    red, green, blue = rearrange(bins, "c f h w -> c (f h w)")
    counts = torch.bincount((red * _SHADES + green) * _SHADES + blue, minlength=_SHADES**3)
    return counts / counts.sum()


def _hellinger(one: Float[Tensor, " n"], other: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    return (one.sqrt() - other.sqrt()).square().sum().div(2).sqrt()


__all__ = ["Drift", "DriftSpec", "drift"]
