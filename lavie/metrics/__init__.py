"""Metrics: numbers over generated videos."""

from lavie.metrics.base import Metric, MetricSpec
from lavie.metrics.drift import Drift, DriftSpec, drift
from lavie.metrics.fidelity import flicker, psnr, ssim
from lavie.metrics.shapes import ShapesAccuracy, ShapesAccuracySpec

__all__ = [
    "Drift",
    "DriftSpec",
    "Metric",
    "MetricSpec",
    "ShapesAccuracy",
    "ShapesAccuracySpec",
    "drift",
    "flicker",
    "psnr",
    "ssim",
]
