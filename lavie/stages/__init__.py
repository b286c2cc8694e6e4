"""Stages: text encoder, autoencoder, denoiser and sampler together, from a request to a video."""

from lavie.stages.base import OnStep, Request, Stage, StageSpec
from lavie.stages.loading import load_stage, shipped_weights
from lavie.stages.text_to_video import TextToVideo, TextToVideoSpec, VideoShape

__all__ = [
    "OnStep",
    "Request",
    "Stage",
    "StageSpec",
    "TextToVideo",
    "TextToVideoSpec",
    "VideoShape",
    "load_stage",
    "shipped_weights",
]
