"""Reads the world `shapes` back from pixels, and counts how often a video shows what its prompt asked for."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal, final

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lavie.data.shapes import BACKGROUNDS, COLOURS, SHAPES
from lavie.data.sprites import SILHOUETTES, template
from lavie.metrics.base import Metric, MetricSpec

ATTRIBUTES = ("colour", "shape", "motion")
"""What is counted."""
NONE = "none"
"""What is read where nothing can be seen."""

_RESOLUTION = 32
_SPAN = 2.2
"""Side of the square that silhouettes of area 1 are compared in; the longest, the bar, is 1.74 long."""


class ShapesAccuracySpec(MetricSpec):
    """How often videos of the world `shapes` show the colour, shape and motion that their labels say."""

    type: Literal["shapes_accuracy"] = "shapes_accuracy"
    threshold: Annotated[float, Field(gt=0, le=2)] = 0.4
    """Distance from the background, in RGB of [-1, 1], from which a pixel belongs to a shape."""
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.004
    """Part of the frame that a shape must cover; less is a speck, and nothing is seen."""

    def build(self) -> "ShapesAccuracy":
        """Return the metric with nothing taken in yet."""
        return ShapesAccuracy(self)


@final
class ShapesAccuracy(Metric):
    """Counts per attribute, and videos with everything right."""

    def __init__(self, spec: ShapesAccuracySpec) -> None:
        self.spec = spec
        self._right: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()

    def update(self, video: Float[Tensor, "b 3 f h w"], labels: Sequence[Mapping[str, str]]) -> None:
        """Take in a batch; an attribute that labels leave out is not counted, and `all` means all that are there.

        Raises:
            ValueError: if there is not one mapping of labels for each video, or one asks for nothing.
        """
        if len(video) != len(labels):
            raise ValueError(f"{len(video)} videos but {len(labels)} labels; give one mapping for each video")
        for one, wanted in zip(video, labels, strict=True):
            asked = [attribute for attribute in ATTRIBUTES if attribute in wanted]
            if not asked:
                raise ValueError(f"labels {dict(wanted)} have none of {', '.join(ATTRIBUTES)}")
            found = read(one, self.spec.threshold, self.spec.min_area)
            right = [attribute for attribute in asked if found[attribute] == wanted[attribute]]
            self._right.update(right)
            self._asked.update([*asked, "all"])
            self._right["all"] += right == asked

    def compute(self) -> dict[str, float]:
        """Return the right fraction of each attribute (nan if never asked for) and of `all`, and the `count`."""
        fractions = {
            name: self._right[name] / self._asked[name] if self._asked[name] else math.nan
            for name in (*ATTRIBUTES, "all")
        }
        return {**fractions, "count": float(self._asked["all"])}


def read(video: Float[Tensor, "3 f h w"], threshold: float = 0.4, min_area: float = 0.004) -> dict[str, str]:
    """Say which colour, shape, motion and background a video in [-1, 1] shows, `none` where nothing is seen.

    Made for generated videos: soft edges, slight noise and single specks do not change the answer. Videos of fewer
    than three frames have no motion.
    """
    video = video.detach().to("cpu", torch.float32)
    back = _background(video)
    background = _nearest(back.mean(dim=1), BACKGROUNDS)
    seen = _find(video, back, threshold, min_area)
    if seen is None:
        return {"colour": NONE, "shape": NONE, "motion": NONE, "background": background}
    colour = _nearest(seen.colour, COLOURS)
    return {"colour": colour, "shape": _shape(seen), "motion": _motion(seen), "background": background}


@dataclass(frozen=True)
class _Seen:
    """The shape as found in the frames that show it; lengths in units of the shorter side."""

    mask: Float[Tensor, "f h w"]
    """How much of each pixel the shape covers."""
    colour: Float[Tensor, "3"]
    centers: Float[Tensor, "f 2"]
    areas: Float[Tensor, " f"]
    times: Float[Tensor, " f"]
    """From 0, the first frame of the video, to 1, its last."""


def _background(video: Float[Tensor, "3 f h w"]) -> Float[Tensor, "3 f"]:
    """Take the median of a border two pixels wide, frame by frame."""
    sides = [video[..., :2, :], video[..., -2:, :], video[..., 2:-2, :2], video[..., 2:-2, -2:]]
    return torch.cat([rearrange(side, "c f h w -> c f (h w)") for side in sides], dim=-1).median(dim=-1).values


def _nearest(colour: Float[Tensor, "3"], palette: Mapping[str, tuple[float, float, float]]) -> str:
    known = torch.tensor(list(palette.values())) * 2 - 1
    return list(palette)[int((known - colour).square().sum(dim=1).argmin())]


def _find(
    video: Float[Tensor, "3 f h w"], back: Float[Tensor, "3 f"], threshold: float, min_area: float
) -> _Seen | None:
    """Separate the shape from the background; None if fewer than half of the frames show one.

    Its colour is the mean over the pixels that differ most, which are its inside; how much a pixel is covered is its
    place on the line from background to that colour.
    """
    height, width = video.shape[-2:]
    away = video - back[:, :, None, None]
    distance = away.norm(dim=0)
    found = distance > threshold
    visible = reduce(found.float(), "f h w -> f", "mean") > min_area
    if 2 * int(visible.sum()) < len(visible):
        return None
    away, distance, found = away[:, visible], distance[visible], found[visible]
    inside = found & (distance > 0.8 * distance[found].quantile(0.9))
    offset = rearrange(away, "c f h w -> f h w c")[inside].mean(dim=0)
    mask = (torch.einsum("cfhw,c->fhw", away, offset) / offset.square().sum()).clamp(0, 1) * found
    mask, centers, areas = _gather(mask, min(height, width))
    times = torch.linspace(0, 1, len(visible))[visible]
    big = areas * min(height, width) ** 2 > min_area * height * width / 2
    if 2 * int(big.sum()) < len(visible):
        return None
    colour = back.mean(dim=1) + offset
    return _Seen(mask[big], colour, centers[big], areas[big], times[big])


def _gather(
    mask: Float[Tensor, "f h w"], unit: int
) -> tuple[Float[Tensor, "f h w"], Float[Tensor, "f 2"], Float[Tensor, " f"]]:
    """Drop specks far from the shape, and return what is left with its centre and area, frame by frame."""
    x, y = ((torch.arange(side) + 0.5) / unit for side in (mask.shape[2], mask.shape[1]))
    columns, rows = mask.sum(dim=1), mask.sum(dim=2)
    middle_x, middle_y = _median(x, columns), _median(y, rows)
    reach = 1.5 * (columns.sum(dim=1) / unit**2).sqrt()
    away = torch.hypot(x[None, None, :] - middle_x[:, None, None], y[None, :, None] - middle_y[:, None, None])
    mask = mask * (away <= reach[:, None, None])
    columns, rows = mask.sum(dim=1), mask.sum(dim=2)
    total = columns.sum(dim=1).clamp(min=1e-6)
    centers = torch.stack([columns @ x / total, rows @ y / total], dim=1)
    return mask, centers, total / unit**2


def _median(ticks: Float[Tensor, " n"], weights: Float[Tensor, "f n"]) -> Float[Tensor, " f"]:
    summed = weights.cumsum(dim=1)
    return ticks[(summed >= summed[:, -1:] / 2).float().argmax(dim=1)]


@cache
def _templates() -> Float[Tensor, "s n n"]:
    return torch.stack([torch.from_numpy(template(SILHOUETTES[name], _RESOLUTION, _SPAN)).float() for name in SHAPES])


def _shape(seen: _Seen) -> str:
    """Compare with every silhouette at equal area and place: intersection over union, meaned over the larger frames."""
    larger = seen.areas >= 0.5 * seen.areas.max()
    mask, centers, areas = seen.mask[larger], seen.centers[larger], seen.areas[larger]
    height, width = mask.shape[-2:]
    ticks = ((torch.arange(_RESOLUTION) + 0.5) / _RESOLUTION - 0.5) * _SPAN
    offsets = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1)
    places = centers[:, None, None] + offsets * areas.sqrt()[:, None, None, None]
    grid = places * min(height, width) * 2 / torch.tensor([width, height]) - 1
    cut = functional.grid_sample(mask[:, None], grid, align_corners=False)
    templates = _templates()
    overlap = torch.minimum(cut, templates).sum(dim=(2, 3)) / torch.maximum(cut, templates).sum(dim=(2, 3))
    return SHAPES[int(overlap.mean(dim=0).argmax())]


def _motion(seen: _Seen) -> str:
    """Read the motion from the tracks of centre and size, each taken as a straight line but for circling.

    What counts is the larger of way and growth, in units of what the world does: half a frame, a factor of two.
    """
    if len(seen.times) < 3:
        return NONE
    around = seen.centers - seen.centers.mean(dim=0)
    spread = torch.linalg.eigvalsh(around.T @ around / len(around)).clamp(min=0).sqrt()
    if spread[0] > 0.05 and abs(_turned(around)) > 0.55:
        return "circling"
    times = seen.times - seen.times.mean()
    slope = times / times.square().sum()
    way_x, way_y = (slope @ seen.centers).tolist()
    growth = float(slope @ seen.areas.log2() / 2)
    travel = max(abs(way_x), abs(way_y)) / 0.5
    if max(travel, abs(growth)) < 0.35:
        return "still"
    if abs(growth) > travel:
        return "growing" if growth > 0 else "shrinking"
    if abs(way_x) > abs(way_y):
        return "right" if way_x > 0 else "left"
    return "down" if way_y > 0 else "up"


def _turned(around: Float[Tensor, "f 2"]) -> float:
    """Return how many times a track goes round its centre, clockwise positive."""
    angle = torch.atan2(around[:, 1], around[:, 0])
    steps = torch.remainder(angle.diff() + math.pi, 2 * math.pi) - math.pi
    return float(steps.sum()) / (2 * math.pi)
