"""Reads which scheduler a recorded trajectory is of, and says it in our specs.

Keys and values are those of diffusers configurations; only options that change numbers are looked at, and those
without a counterpart are refused by name.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lavie.errors import LavieError
from lavie.samplers.base import SamplerSpec
from lavie.samplers.ddim import DDIMSpec
from lavie.samplers.ddpm import DDPMSpec, Variance
from lavie.samplers.euler import EulerSpec
from lavie.samplers.schedule import LinearScheduleSpec, ScaledLinearScheduleSpec, ScheduleSpec
from lavie.spec import PredictionType

Options = Mapping[str, Any]


class UnsupportedError(LavieError):
    """A recorded trajectory of a scheduler, or with an option, that lavie has no counterpart for."""


@dataclass(frozen=True)
class Recording:
    """What a recorded trajectory is of, as our specs."""

    schedule: ScheduleSpec
    sampler: SamplerSpec
    prediction_type: PredictionType
    in_sigma_coordinates: bool
    """Whether the file holds noisy latents in sigma coordinates, not as the network sees them."""


def read_recording(metadata: Mapping[str, str]) -> Recording:
    """Translate a file's description.

    Raises:
        UnsupportedError: naming the scheduler or option that lavie has no counterpart for.
    """
    name = metadata["scheduler"].partition("@")[0]
    if name not in _SCHEDULERS:
        raise UnsupportedError(f"scheduler {name} is not known; known: {', '.join(sorted(_SCHEDULERS))}")
    scheduler = _SCHEDULERS[name]
    options = {**json.loads(metadata["config_effective"]), **json.loads(metadata.get("step_kwargs", "{}"))}
    version = [int(part) for part in metadata.get("diffusers_version", "1.0").split(".")[:2]]
    if version < [0, 18]:
        options["timestep_spacing"] = "leading" if scheduler.spacing == "leading" else "linspace"
        options["steps_offset"] = 0 if name == "DDPMScheduler" else options.get("steps_offset", 0)
    for option, neutral in {**_NEUTRAL, **scheduler.neutral}.items():
        if (value := options.get(option, neutral)) != neutral:
            raise UnsupportedError(f"{option}={json.dumps(value)} of {name} has no counterpart")
    num_inference_steps = int(metadata["num_inference_steps"])
    if num_inference_steps == 1 and options["timestep_spacing"] == "linspace":
        raise UnsupportedError("one step with linspace spacing starts at timestep 0 in diffusers, at the last one here")
    return Recording(
        _schedule(options),
        scheduler.read(num_inference_steps, options),
        _prediction_type(metadata),
        scheduler.in_sigma_coordinates,
    )


def _prediction_type(metadata: Mapping[str, str]) -> PredictionType:
    match metadata["prediction_type"]:
        case "epsilon":
            return "epsilon"
        case "v_prediction":
            return "v_prediction"
        case "sample" | "original_sample":
            return "sample"
        case other:
            raise UnsupportedError(f"prediction_type={other} has no counterpart")


def _schedule(options: Options) -> ScheduleSpec:
    betas = {
        "beta_start": float(options["beta_start"]),
        "beta_end": float(options["beta_end"]),
        "num_train_timesteps": options["num_train_timesteps"],
    }
    match options["beta_schedule"]:
        case "linear":
            return LinearScheduleSpec(**betas)
        case "scaled_linear":
            return ScaledLinearScheduleSpec(**betas)
        case other:
            raise UnsupportedError(f"beta_schedule={other} has no counterpart")


def _clip(options: Options) -> float | None:
    return float(options.get("clip_sample_range", 1.0)) if options.get("clip_sample") else None


def _ddpm(num_inference_steps: int, options: Options) -> SamplerSpec:
    match options["variance_type"]:
        case "fixed_small" | "fixed_small_log":
            variance: Variance = "fixed_small"
        case "fixed_large":
            variance = "fixed_large"
        case other:
            raise UnsupportedError(f"variance_type={other} of DDPMScheduler has no counterpart")
    return DDPMSpec(
        num_inference_steps=num_inference_steps,
        spacing=options["timestep_spacing"],
        offset=options["steps_offset"],
        variance=variance,
        clip=_clip(options),
    )


def _ddim(num_inference_steps: int, options: Options) -> SamplerSpec:
    return DDIMSpec(
        num_inference_steps=num_inference_steps,
        spacing=options["timestep_spacing"],
        offset=options["steps_offset"],
        stride="constant",
        set_alpha_to_one=options["set_alpha_to_one"],
        eta=float(options.get("eta", 0.0)),
        clip=_clip(options),
    )


def _euler(num_inference_steps: int, options: Options) -> SamplerSpec:
    return EulerSpec(
        num_inference_steps=num_inference_steps,
        spacing=options["timestep_spacing"],
        offset=options["steps_offset"],
    )


@dataclass(frozen=True)
class _Scheduler:
    """How to read one diffusers scheduler."""

    read: Callable[[int, Options], SamplerSpec]
    spacing: str
    """The spacing it had before it became an option."""
    in_sigma_coordinates: bool
    neutral: Options
    """Options without a counterpart, and the value that makes them do nothing."""


_NEUTRAL = {"trained_betas": None, "thresholding": False, "rescale_betas_zero_snr": False}
_SIGMAS = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "final_sigmas_type": "zero",
}
_CHURN = {"s_churn": 0.0, "s_noise": 1.0}
_SCHEDULERS = {
    "DDPMScheduler": _Scheduler(_ddpm, "leading", False, {}),
    "DDIMScheduler": _Scheduler(_ddim, "leading", False, {"use_clipped_model_output": False}),
    "EulerDiscreteScheduler": _Scheduler(
        _euler,
        "linspace",
        True,
        _SIGMAS
        | _CHURN
        | {"interpolation_type": "linear", "timestep_type": "discrete", "sigma_min": None, "sigma_max": None},
    ),
}
