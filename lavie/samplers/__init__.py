"""Schedules, prediction types, guidance, noise and solvers: the separate things that sampling is made of."""

from lavie.samplers.base import Denoise, Noise, Sampler, SamplerSpec, Step
from lavie.samplers.ddim import DDIMSpec
from lavie.samplers.ddpm import DDPMSpec
from lavie.samplers.dpmpp import DPMPP2MSpec
from lavie.samplers.euler import EulerSpec
from lavie.samplers.euler_ancestral import EulerAncestralSpec
from lavie.samplers.guidance import ClassifierFreeSpec, Guidance, GuidanceSpec, NoGuidanceSpec
from lavie.samplers.heun import HeunSpec
from lavie.samplers.lcm import LCMSpec
from lavie.samplers.noise import NoiseSource, batch_noise
from lavie.samplers.prediction import add_noise, check_prediction, denoised_from, make_denoise, target
from lavie.samplers.recording import UnsupportedError
from lavie.samplers.replay import Replay, replay
from lavie.samplers.schedule import (
    CosineScheduleSpec,
    FlowScheduleSpec,
    LinearScheduleSpec,
    ScaledLinearScheduleSpec,
    Schedule,
    ScheduleSpec,
)
from lavie.samplers.unipc import UniPCSpec

__all__ = [
    "ClassifierFreeSpec",
    "CosineScheduleSpec",
    "DDIMSpec",
    "DDPMSpec",
    "DPMPP2MSpec",
    "Denoise",
    "EulerAncestralSpec",
    "EulerSpec",
    "FlowScheduleSpec",
    "Guidance",
    "GuidanceSpec",
    "HeunSpec",
    "LCMSpec",
    "LinearScheduleSpec",
    "NoGuidanceSpec",
    "Noise",
    "NoiseSource",
    "Replay",
    "Sampler",
    "SamplerSpec",
    "ScaledLinearScheduleSpec",
    "Schedule",
    "ScheduleSpec",
    "Step",
    "UniPCSpec",
    "UnsupportedError",
    "add_noise",
    "batch_noise",
    "check_prediction",
    "denoised_from",
    "make_denoise",
    "replay",
    "target",
]
