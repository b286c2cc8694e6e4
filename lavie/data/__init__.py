"""Datasets: where clips and their captions come from."""

from lavie.data.base import Clip, Dataset, DatasetSpec
from lavie.data.head import Head, HeadSpec
from lavie.data.shapes import Shapes, ShapesSpec

__all__ = ["Clip", "Dataset", "DatasetSpec", "Head", "HeadSpec", "Shapes", "ShapesSpec"]
