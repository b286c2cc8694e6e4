"""Metrics: numbers over generated videos."""

from lavie.metrics.base import Metric, MetricSpec
from lavie.metrics.fidelity import flicker, psnr, ssim
from lavie.metrics.shapes import ShapesAccuracy, ShapesAccuracySpec

__all__ = ["Metric", "MetricSpec", "ShapesAccuracy", "ShapesAccuracySpec", "flicker", "psnr", "ssim"]
