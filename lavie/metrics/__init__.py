"""Metrics: numbers over generated videos."""

from lavie.metrics.base import Metric, MetricSpec
from lavie.metrics.shapes import ShapesAccuracy, ShapesAccuracySpec

__all__ = ["Metric", "MetricSpec", "ShapesAccuracy", "ShapesAccuracySpec"]
