"""Datasets: where clips and their captions come from."""

from lavie.data.base import Clip, Dataset, DatasetSpec
from lavie.data.crop import Crop, CropSpec
from lavie.data.head import Head, HeadSpec
from lavie.data.shapes import Shapes, ShapesSpec

__all__ = ["Clip", "Crop", "CropSpec", "Dataset", "DatasetSpec", "Head", "HeadSpec", "Shapes", "ShapesSpec"]
