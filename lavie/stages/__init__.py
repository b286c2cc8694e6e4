"""Stages: text encoder, autoencoder, denoiser and sampler together, from a request to a video."""

from lavie.stages.base import Given, Keep, OnStep, PromptSpec, Request, Stage, StageSpec, VideoShape
from lavie.stages.cascade import Cascade, CascadeSpec
from lavie.stages.coverage import Coverage, CoverageSpec, Part
from lavie.stages.latent_diffusion import LatentDiffusion, LatentDiffusionSpec
from lavie.stages.lazy_video import LatentVideo, LazyVideo, PixelVideo
from lavie.stages.loading import load_stage, shipped_weights
from lavie.stages.run import Run
from lavie.stages.source import Source, SourceSpec

__all__ = [
    "Cascade",
    "CascadeSpec",
    "Coverage",
    "CoverageSpec",
    "Given",
    "Keep",
    "LatentDiffusion",
    "LatentDiffusionSpec",
    "LatentVideo",
    "LazyVideo",
    "OnStep",
    "Part",
    "PixelVideo",
    "PromptSpec",
    "Request",
    "Run",
    "Source",
    "SourceSpec",
    "Stage",
    "StageSpec",
    "VideoShape",
    "load_stage",
    "shipped_weights",
]
