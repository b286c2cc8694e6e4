"""Metrics: numbers over generated videos."""

from lavie.metrics.base import Metric, MetricSpec
from lavie.metrics.drift import Drift, DriftSpec
from lavie.metrics.fidelity import flicker, psnr, ssim
from lavie.metrics.shapes import ShapesAccuracy, ShapesAccuracySpec

__all__ = [
    "Drift",
    "DriftSpec",
    "Metric",
    "MetricSpec",
    "ShapesAccuracy",
    "ShapesAccuracySpec",
    "flicker",
    "psnr",
    "ssim",
]
