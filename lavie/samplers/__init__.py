"""Schedules, prediction types, guidance, noise and solvers: the separate things that sampling is made of."""

from lavie.samplers.apg import AdaptiveProjectedSpec
from lavie.samplers.base import Denoise, Noise, Sampler, SamplerSpec, Step
from lavie.samplers.curves import CosineScheduleSpec, SigmoidScheduleSpec
from lavie.samplers.ddim import DDIMSpec
from lavie.samplers.ddpm import DDPMSpec
from lavie.samplers.dpmpp import DPMPP2MSpec
from lavie.samplers.dpmpp_sde import DPMPP2MSDESpec
from lavie.samplers.euler import EulerSpec
from lavie.samplers.euler_ancestral import EulerAncestralSpec
from lavie.samplers.free_init import FreeInitSpec
from lavie.samplers.guidance import ClassifierFreeSpec, Guidance, GuidanceSpec, NoGuidanceSpec, Perturb
from lavie.samplers.heun import HeunSpec
from lavie.samplers.interval import IntervalSpec
from lavie.samplers.lcm import LCMSpec
from lavie.samplers.noise import NoiseSource, batch_noise
from lavie.samplers.perturbed_attention import PerturbedAttentionSpec
from lavie.samplers.prediction import add_noise, check_prediction, denoised_from, make_denoise, target
from lavie.samplers.recorded_tables import UnsupportedError
from lavie.samplers.replay import Replay, replay
from lavie.samplers.rescale import RescaleSpec
from lavie.samplers.schedule import (
    FlowScheduleSpec,
    LinearScheduleSpec,
    ScaledLinearScheduleSpec,
    Schedule,
    ScheduleSpec,
)
from lavie.samplers.thresholding import DynamicThresholdingSpec
from lavie.samplers.unipc import UniPCSpec

__all__ = [
    "AdaptiveProjectedSpec",
    "ClassifierFreeSpec",
    "CosineScheduleSpec",
    "DDIMSpec",
    "DDPMSpec",
    "DPMPP2MSDESpec",
    "DPMPP2MSpec",
    "Denoise",
    "DynamicThresholdingSpec",
    "EulerAncestralSpec",
    "EulerSpec",
    "FlowScheduleSpec",
    "FreeInitSpec",
    "Guidance",
    "GuidanceSpec",
    "HeunSpec",
    "IntervalSpec",
    "LCMSpec",
    "LinearScheduleSpec",
    "NoGuidanceSpec",
    "Noise",
    "NoiseSource",
    "Perturb",
    "PerturbedAttentionSpec",
    "Replay",
    "RescaleSpec",
    "Sampler",
    "SamplerSpec",
    "ScaledLinearScheduleSpec",
    "Schedule",
    "ScheduleSpec",
    "SigmoidScheduleSpec",
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
