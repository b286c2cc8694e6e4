"""Silhouettes as signed distances, and their antialiased drawing at any resolution.

Coordinates of a silhouette: x to the right, y up, the centroid near the origin, size about 1. Distances are exact
along the edges, which is all that a coverage ramp of one pixel needs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Array = Float[np.ndarray, "..."]


@dataclass(frozen=True)
class Silhouette:
    """The outline of a sprite."""

    distance: Callable[[Array, Array], Array]
    """Signed distance at (x, y), negative inside."""
    reach: float
    """Largest |x| or |y| of a point inside."""


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.9


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - 0.8) - 0.2


def _bar(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x) - 1.08, np.abs(y) - 0.36)


def _triangle(x: Array, y: Array) -> Array:
    slanted = math.sqrt(0.75) * np.abs(x) + 0.5 * y
    return np.maximum(slanted, -y) - 0.575


def _cross(x: Array, y: Array) -> Array:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - 1.0, np.minimum(x, y) - 0.3)


def _moon(x: Array, y: Array) -> Array:
    x = x - 0.35
    return np.maximum(np.hypot(x, y) - 1.0, 0.8 - np.hypot(x - 0.45, y))


def _star(x: Array, y: Array) -> Array:
    """A five-pointed star: fold the plane into half a point, where the outline is one straight line."""
    reach, dent, half = 1.15, 0.42, math.pi / 5
    angle = np.abs((np.arctan2(x, y) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    edge_x, edge_y = dent * math.sin(half), dent * math.cos(half) - reach
    across = radius * np.cos(angle) - reach
    return (across * edge_x - radius * np.sin(angle) * edge_y) / math.hypot(edge_x, edge_y)


def _heart(x: Array, y: Array) -> Array:
    """Two round lobes, each joined to the tip below by its tangents; the notch is deep, to look less like a circle."""
    lobe_x, lobe_y, radius, tip = 0.48, 0.42, 0.46, -1.05
    x, y = np.abs(x) - lobe_x, y - lobe_y
    axis_x, axis_y = lobe_x, lobe_y - tip
    length = math.hypot(axis_x, axis_y)
    half_angle = math.asin(radius / length)
    normal = math.atan2(axis_y, axis_x) - half_angle - math.pi / 2
    tangent = x * math.cos(normal) + y * math.sin(normal) - radius
    chord = (x * axis_x + y * axis_y) / length + radius * math.sin(half_angle)
    return np.minimum(np.hypot(x, y) - radius, np.maximum(tangent, chord))


SILHOUETTES = {
    "circle": Silhouette(_circle, 0.9),
    "triangle": Silhouette(_triangle, 1.15),
    "star": Silhouette(_star, 1.15),
    "cross": Silhouette(_cross, 1.0),
    "heart": Silhouette(_heart, 1.05),
    "ring": Silhouette(_ring, 1.0),
    "bar": Silhouette(_bar, 1.08),
    "moon": Silhouette(_moon, 1.0),
}
"""The shapes of the world; no two overlap by more than .74 at equal area, so that blur leaves them apart."""


def coverage(
    silhouette: Silhouette,
    centers: Float[np.ndarray, "f 2"],
    sizes: Float[np.ndarray, " f"],
    height: int,
    width: int,
) -> Float[np.ndarray, "f h w"]:
    """Draw how much of each pixel a sprite covers, from 0 to 1.

    Centres (x to the right, y down) and sizes are in units of the shorter side. Only a window around the sprite is
    worked out, which is what makes drawing during training cheap.
    """
    unit = min(height, width)
    window = math.ceil(2 * silhouette.reach * float(sizes.max()) * unit) + 3
    corners, offsets = [], []
    for axis, side in enumerate((width, height)):
        span = min(window, side)
        corner = np.clip(np.rint(centers[:, axis] * unit - span / 2), 0, side - span).astype(np.int64)
        pixels = corner[:, None] + np.arange(span) + 0.5
        offsets.append(((pixels / unit - centers[:, axis, None]) / sizes[:, None]).astype(np.float32))
        corners.append(corner)
    distance = silhouette.distance(offsets[0][:, None, :], -offsets[1][:, :, None])
    scale = (sizes * unit).astype(np.float32)[:, None, None]
    inside = np.clip(0.5 - distance * scale, 0, 1)
    covered = np.zeros((len(sizes), height, width), np.float32)
    for frame, (left, top) in enumerate(zip(*corners, strict=True)):
        covered[frame, top : top + inside.shape[1], left : left + inside.shape[2]] = inside[frame]
    return covered


def template(silhouette: Silhouette, resolution: int, span: float) -> Bool[np.ndarray, "n n"]:
    """Return a silhouette of area 1 with its centroid in the middle of a square of side `span`, top row first."""
    x, y = _grid(512, 2.6)
    inside = silhouette.distance(x, y) < 0
    area = inside.mean() * 2.6**2
    middle_x, middle_y = x[inside].mean(), y[inside].mean()
    x, y = _grid(resolution, span)
    scale = math.sqrt(area)
    return silhouette.distance(x * scale + middle_x, y * scale + middle_y) < 0


def _grid(resolution: int, span: float) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    ticks = ((np.arange(resolution) + 0.5) / resolution - 0.5) * span
    x, y = np.meshgrid(ticks, -ticks)
    return x, y
