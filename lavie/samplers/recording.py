"""Reads which scheduler a recorded trajectory is of, and says it in our specs.

Keys and values are those of diffusers configurations; only options that change numbers are looked at, and those
without a counterpart are refused by name.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from lavie.errors import LavieError
from lavie.samplers.base import SamplerSpec
from lavie.samplers.ddim import DDIMSpec
from lavie.samplers.ddpm import DDPMSpec, Variance
from lavie.samplers.dpmpp import DPMPP2MSpec
from lavie.samplers.euler import EulerSpec
from lavie.samplers.euler_ancestral import EulerAncestralSpec
from lavie.samplers.grid import GridSpec
from lavie.samplers.heun import HeunSpec
from lavie.samplers.lcm import LCMSpec
from lavie.samplers.schedule import BetasSpec, CosineScheduleSpec, LinearScheduleSpec, ScaledLinearScheduleSpec
from lavie.samplers.unipc import UniPCSpec
from lavie.spec import PredictionType, faults_of

Options = Mapping[str, Any]
Answer = Callable[[int, Tensor, float], Tensor]
"""`(call, network input, timestep) -> prediction`: stands in for the network."""


class UnsupportedError(LavieError):
    """A recorded trajectory of a scheduler, or with an option, that lavie has no counterpart for."""


@dataclass(frozen=True)
class Recording:
    """What a recorded trajectory is of, as our specs."""

    schedule: BetasSpec
    sampler: SamplerSpec
    prediction_type: PredictionType
    in_sigma_coordinates: bool
    """Whether the file holds noisy latents in sigma coordinates, not as the network sees them."""
    in_float32: bool = True
    """Whether the noise table was computed in float32."""


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
        if (value := options.get(option, neutral)) not in (neutral, str(neutral)):
            raise UnsupportedError(f"{option}={json.dumps(value)} of {name} has no counterpart")
    num_inference_steps = int(metadata["num_inference_steps"])
    if num_inference_steps == 1 and options["timestep_spacing"] == "linspace":
        raise UnsupportedError("one step with linspace spacing starts at timestep 0 in diffusers, at the last one here")
    return Recording(
        _schedule(options, scheduler.terminal_sigma),
        scheduler.read(num_inference_steps, options),
        _prediction_type(metadata),
        scheduler.in_sigma_coordinates,
    )


def recorded_answers(tensors: Mapping[str, Tensor]) -> Answer:
    """Return the recorded network outputs, call by call."""
    outputs = tensors["model_output"]

    def answer(index: int, model_input: Tensor, timestep: float) -> Tensor:
        if index >= len(outputs):
            raise UnsupportedError(f"the recording ends after {len(outputs)} network calls; our solver makes more")
        return outputs[index].to(model_input)

    return answer


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


def _schedule(options: Options, terminal_sigma: float | None) -> BetasSpec:
    specs = {"linear": LinearScheduleSpec, "scaled_linear": ScaledLinearScheduleSpec}
    name = options["beta_schedule"]
    fields: dict[str, Any] = {"num_train_timesteps": options["num_train_timesteps"]}
    if options.get("rescale_betas_zero_snr"):
        fields["terminal_sigma"] = terminal_sigma
    try:
        if name == "squaredcos_cap_v2":
            return CosineScheduleSpec(**fields)
        if name in specs:
            ends = {"beta_start": float(options["beta_start"]), "beta_end": float(options["beta_end"])}
            return specs[name](**ends, **fields)
    except ValidationError as error:
        raise UnsupportedError(f"no such noise table: {faults_of(error)[0]}") from None
    raise UnsupportedError(f"beta_schedule={name} has no counterpart")


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


def _grid(spec: type[GridSpec]) -> Callable[[int, Options], SamplerSpec]:
    def read(num_inference_steps: int, options: Options) -> SamplerSpec:
        spacing = options["timestep_spacing"]
        for shape in ("karras", "exponential"):
            if options.get(f"use_{shape}_sigmas"):
                if spacing != "linspace":
                    raise UnsupportedError(f"use_{shape}_sigmas with {spacing} spacing has no counterpart")
                spacing = shape
        return spec(num_inference_steps=num_inference_steps, spacing=spacing, offset=options["steps_offset"])

    return read


def _lcm(num_inference_steps: int, options: Options) -> SamplerSpec:
    return LCMSpec(
        num_inference_steps=num_inference_steps,
        original_inference_steps=options["original_inference_steps"],
        timestep_scaling=float(options["timestep_scaling"]),
    )


@dataclass(frozen=True)
class _Scheduler:
    """How to read one diffusers scheduler."""

    read: Callable[[int, Options], SamplerSpec]
    neutral: Options
    """Options without a counterpart, and the value that makes them do nothing."""
    spacing: str = "linspace"
    """The spacing it had before it became an option."""
    in_sigma_coordinates: bool = False
    terminal_sigma: float | None = math.sqrt(2**24 - 1)
    """What it takes for an infinite sigma; None where the table is not stretched at all."""


_NEUTRAL = {"trained_betas": None, "thresholding": False}
_SIGMAS = {"use_beta_sigmas": False, "final_sigmas_type": "zero", "sigma_min": None, "sigma_max": None}
_EULER = _SIGMAS | {"s_churn": 0.0, "s_noise": 1.0, "interpolation_type": "linear", "timestep_type": "discrete"}
_MULTISTEP = _SIGMAS | {"solver_order": 2, "lower_order_final": True, "use_flow_sigmas": False}
_DPM = _MULTISTEP | {
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "use_lu_lambdas": False,
    "lambda_min_clipped": -math.inf,
}
_UNIPC = _MULTISTEP | {"predict_x0": True, "solver_type": "bh2", "disable_corrector": [], "solver_p": None}
_SCHEDULERS = {
    "DDPMScheduler": _Scheduler(_ddpm, {}, "leading", terminal_sigma=1e8),
    "DDIMScheduler": _Scheduler(_ddim, {"use_clipped_model_output": False}, "leading", terminal_sigma=1e8),
    "LCMScheduler": _Scheduler(_lcm, {"clip_sample": False}, "leading", terminal_sigma=1e8),
    "EulerDiscreteScheduler": _Scheduler(_grid(EulerSpec), _EULER, in_sigma_coordinates=True),
    "EulerAncestralDiscreteScheduler": _Scheduler(_grid(EulerAncestralSpec), {}, in_sigma_coordinates=True),
    "HeunDiscreteScheduler": _Scheduler(
        _grid(HeunSpec), _SIGMAS | {"clip_sample": False}, in_sigma_coordinates=True, terminal_sigma=None
    ),
    "DPMSolverMultistepScheduler": _Scheduler(_grid(DPMPP2MSpec), _DPM),
    "UniPCMultistepScheduler": _Scheduler(_grid(UniPCSpec), _UNIPC),
}
