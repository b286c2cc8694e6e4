"""Composable parts of video UNets: each a module and the spec that builds it."""

from lavie.blocks.base import (
    Bias,
    BiasSpec,
    Conditioner,
    ConditionerSpec,
    Conditioning,
    Denoiser,
    DenoiserSpec,
    Position,
    PositionSpec,
    ResBlock,
    ResBlockSpec,
    Site,
    SpatialLayer,
    SpatialSpec,
    TemporalLayer,
    TemporalSpec,
)

__all__ = [
    "Bias",
    "BiasSpec",
    "Conditioner",
    "ConditionerSpec",
    "Conditioning",
    "Denoiser",
    "DenoiserSpec",
    "Position",
    "PositionSpec",
    "ResBlock",
    "ResBlockSpec",
    "Site",
    "SpatialLayer",
    "SpatialSpec",
    "TemporalLayer",
    "TemporalSpec",
]
