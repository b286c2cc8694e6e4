"""Reads which scheduler a recorded trajectory is of, and builds our counterpart.

Keys and values are those of diffusers configurations; only options that change numbers are looked at, and those
without a counterpart are refused by name.
"""

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from lavie.samplers.base import Sampler, clamp
from lavie.samplers.ddim import DDIMSpec
from lavie.samplers.ddpm import DDPMSpec, Variance
from lavie.samplers.dpmpp import DPMPP2M, DPMPP2MSpec
from lavie.samplers.dpmpp_sde import DPMPP2MSDE
from lavie.samplers.euler import Euler, EulerSpec
from lavie.samplers.euler_ancestral import EulerAncestral, EulerAncestralSpec
from lavie.samplers.grid import GridSpec, between, unit_scale
from lavie.samplers.heun import Heun, HeunSpec
from lavie.samplers.lcm import LCMSpec
from lavie.samplers.recorded_flow import flow_grid, shifted_grid
from lavie.samplers.recorded_tables import Options, UnsupportedError, recorded_table
from lavie.samplers.schedule import Schedule
from lavie.samplers.thresholding import threshold
from lavie.samplers.unipc import UniPC
from lavie.spec import PredictionType

Answer = Callable[[int, Tensor, float], Tensor]
"""`(call, network input, timestep) -> prediction`: stands in for the network."""
INFINITE = 1e8
"""The sigma that our tables hold for one without end."""
UNENDING = math.sqrt(2**24 - 1)
"""The sigma that diffusers' solvers in sigma take for one without end: that of a signal of 2^-24."""
_LIMITS = ("clip_sample", "thresholding")
Limit = Callable[[Tensor], Tensor]
"""What a scheduler makes of a predicted clean latent before it goes on with it."""


@dataclass(frozen=True)
class Recording:
    """What a recorded trajectory is of."""

    sampler: Sampler
    prediction_type: PredictionType
    in_sigma_coordinates: bool = False
    """Whether the file holds noisy latents in sigma coordinates, not as the network sees them."""
    limit: Limit | None = None
    """Applied to every predicted clean latent, unless the sampler does so itself."""


def read_recording(metadata: Mapping[str, str]) -> Recording:
    """Translate a file's description.

    Raises:
        UnsupportedError: naming the scheduler or option that lavie has no counterpart for.
    """
    name = metadata["scheduler"].partition("@")[0]
    if name not in _SCHEDULERS:
        raise UnsupportedError(f"scheduler {name} is not known; known: {', '.join(sorted(_SCHEDULERS))}")
    scheduler = _SCHEDULERS[name]
    options = _options(name, scheduler, metadata)
    for option, neutral in scheduler.neutral.items():
        if (value := options.get(option, neutral)) not in (neutral, str(neutral)):
            raise UnsupportedError(f"{option}={reprlib.repr(value)} of {name} has no counterpart")
    ignored = scheduler.ignored if options.get("use_clipped_model_output", True) else _LIMITS
    return Recording(
        scheduler.read(int(metadata["num_inference_steps"]), options),
        "flow" if scheduler.is_flow else _prediction_type(metadata["prediction_type"]),
        scheduler.in_sigma_coordinates,
        _limit({name: options[name] for name in options if name not in ignored}),
    )


def recorded_answers(tensors: Mapping[str, Tensor]) -> Answer:
    """Return the recorded network outputs, call by call."""
    outputs = tensors["model_output"]

    def answer(index: int, model_input: Tensor, timestep: float) -> Tensor:
        if index >= len(outputs):
            raise UnsupportedError(f"the recording ends after {len(outputs)} network calls; our solver makes more")
        return outputs[index].to(model_input)

    return answer


def _options(name: str, scheduler: "_Scheduler", metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what the scheduler ran with; releases before 0.18 had fewer options and fixed choices instead."""
    options = {**json.loads(metadata["config_effective"]), **json.loads(metadata.get("step_kwargs", "{}"))}
    if name == "DDIMScheduler":
        options.setdefault("use_clipped_model_output", False)
    version = [int(part) for part in metadata.get("diffusers_version", "1.0").split(".")[:2]]
    if version < [0, 18]:
        options["timestep_spacing"] = "leading" if scheduler.is_leading else "linspace"
        options["steps_offset"] = 0 if name == "DDPMScheduler" else options.get("steps_offset", 0)
        if "final_sigmas_type" in scheduler.neutral and not scheduler.in_sigma_coordinates:
            options["final_sigmas_type"] = "sigma_min"
    return options


def _prediction_type(name: str) -> PredictionType:
    match name:
        case "epsilon" | "v_prediction" | "sample" | "flow":
            return name
        case "original_sample":
            return "sample"
        case "flow_prediction":
            return "flow"
        case other:
            raise UnsupportedError(f"prediction_type={other} has no counterpart")


def _limit(options: Options) -> Limit | None:
    if options.get("thresholding"):
        quantile, most = float(options["dynamic_thresholding_ratio"]), float(options["sample_max_value"])
        return partial(threshold, quantile=quantile, bound=1.0, most=most)
    return partial(clamp, bound=_clip(options)) if options.get("clip_sample") else None


def _clip(options: Options) -> float | None:
    return float(options.get("clip_sample_range", 1.0)) if options.get("clip_sample") else None


def _ddpm(count: int, options: Options) -> Sampler:
    variances: dict[str, Variance] = {"fixed_small_log": "fixed_small", "fixed_small": "fixed_small"}
    variances["fixed_large"] = "fixed_large"
    if options["variance_type"] not in variances:
        raise UnsupportedError(f"variance_type={options['variance_type']} of DDPMScheduler has no counterpart")
    return DDPMSpec(
        num_inference_steps=count,
        spacing=_spacing(count, options),
        offset=options["steps_offset"],
        variance=variances[options["variance_type"]],
    ).build(recorded_table(options, INFINITE))


def _ddim(count: int, options: Options) -> Sampler:
    if options.get("thresholding"):
        raise UnsupportedError("thresholding=True of DDIMScheduler has no counterpart")
    return DDIMSpec(
        num_inference_steps=count,
        spacing=_spacing(count, options),
        offset=options["steps_offset"],
        stride="constant",
        set_alpha_to_one=options["set_alpha_to_one"],
        eta=float(options.get("eta", 0.0)),
        clip=_clip(options),
    ).build(recorded_table(options, INFINITE))


def _lcm(count: int, options: Options) -> Sampler:
    return LCMSpec(
        num_inference_steps=count,
        original_inference_steps=options["original_inference_steps"],
        timestep_scaling=float(options["timestep_scaling"]),
    ).build(recorded_table(options, INFINITE))


def _spacing(count: int, options: Options) -> Any:
    if count == 1 and options["timestep_spacing"] == "linspace":
        raise UnsupportedError("one step with linspace spacing starts at timestep 0 in diffusers, at the last one here")
    return options["timestep_spacing"]


def _shape(options: Options) -> Any:
    return next((shape for shape in ("karras", "exponential") if options.get(f"use_{shape}_sigmas")), None)


def _full(spec: type[GridSpec], solver: type[Sampler]) -> Callable[[int, Options], Sampler]:
    """Read a solver on the full grid, whose spacing in noise levels may go between the ends of one in timesteps."""

    def read(count: int, options: Options) -> Sampler:
        spacing, shape = _spacing(count, options), _shape(options) if solver is not EulerAncestral else None
        schedule = recorded_table(options, None if solver is Heun else UNENDING)
        is_whole = shape is not None and spacing == "linspace"
        chosen = shape if is_whole else spacing
        sampler = spec(num_inference_steps=count, spacing=chosen, offset=options["steps_offset"]).build(schedule)
        if shape is None or is_whole:
            return sampler
        *_, low, _ = sampler.sigmas.tolist()
        sigmas = [*between(shape, sampler.sigmas[0].item(), low, count), 0.0]
        return solver(schedule, sigmas, sigmas[0] if spacing == "trailing" else unit_scale(schedule, sigmas[0]))

    return read


def _inner(count: int, options: Options) -> tuple[Schedule, list[float]]:
    """Return the grid of a multistep solver, which lays spacings in noise levels over the whole table."""
    if options.get("use_flow_sigmas"):
        return flow_grid(count, options)
    schedule = recorded_table(options, UNENDING)
    spacing = _shape(options) or options["timestep_spacing"]
    spec = DPMPP2MSpec(num_inference_steps=count, spacing=spacing, offset=options["steps_offset"])
    return schedule, spec.inner_grid(schedule)


def _dpm(count: int, options: Options) -> Sampler:
    schedule, sigmas = _inner(count, options)
    solvers: dict[tuple[str, int], Callable[[], Sampler]] = {
        ("dpmsolver++", 1): lambda: Euler(schedule, sigmas, unit_scale(schedule, sigmas[0])),
        ("dpmsolver++", 2): lambda: DPMPP2M(schedule, sigmas, unit_scale(schedule, sigmas[0])),
        ("sde-dpmsolver++", 1): lambda: EulerAncestral(schedule, sigmas, unit_scale(schedule, sigmas[0])),
        ("sde-dpmsolver++", 2): lambda: DPMPP2MSDE(schedule, sigmas, eta=1.0),
    }
    kind = (options["algorithm_type"], options["solver_order"])
    if kind not in solvers:
        raise UnsupportedError(f"{kind[0]} of order {kind[1]} has no counterpart")
    return solvers[kind]()


def _unipc(count: int, options: Options) -> Sampler:
    schedule, sigmas = _inner(count, options)
    return UniPC(schedule, sigmas, order=options["solver_order"])


def _flow(solver: type[Sampler]) -> Callable[[int, Options], Sampler]:
    def read(count: int, options: Options) -> Sampler:
        schedule, sigmas = shifted_grid(count, options)
        return solver(schedule, sigmas, unit_scale(schedule, sigmas[0]))

    return read


@dataclass(frozen=True)
class _Scheduler:
    """How to read one diffusers scheduler."""

    read: Callable[[int, Options], Sampler]
    neutral: Options
    """Options without a counterpart, and the value that makes them do nothing."""
    is_leading: bool = False
    """The spacing it had before it became an option; linspace otherwise."""
    in_sigma_coordinates: bool = False
    ignored: tuple[str, ...] = _LIMITS
    """Limits of the predicted latent that it does not have, or that our sampler applies itself."""
    is_flow: bool = False


_SIGMAS = {"use_beta_sigmas": False, "final_sigmas_type": "zero", "sigma_min": None, "sigma_max": None}
_EULER = _SIGMAS | {"s_churn": 0.0, "s_noise": 1.0, "interpolation_type": "linear", "timestep_type": "discrete"}
_SHIFT = {"use_dynamic_shifting": False, "shift_terminal": None, "stochastic_sampling": False}
_DPM = _SIGMAS | _SHIFT | {"use_lu_lambdas": False, "lambda_min_clipped": -math.inf, "solver_type": "midpoint"}
_UNIPC = (
    _SIGMAS
    | _SHIFT
    | {"predict_x0": True, "solver_type": "bh2", "disable_corrector": [], "solver_p": None, "lower_order_final": True}
)
_FLOW = _SIGMAS | _SHIFT | {"invert_sigmas": False, "use_karras_sigmas": False, "use_exponential_sigmas": False}
_SCHEDULERS = {
    "DDPMScheduler": _Scheduler(_ddpm, {}, is_leading=True, ignored=()),
    "DDIMScheduler": _Scheduler(_ddim, {}, is_leading=True, ignored=()),
    "LCMScheduler": _Scheduler(_lcm, {}, is_leading=True, ignored=()),
    "EulerDiscreteScheduler": _Scheduler(_full(EulerSpec, Euler), _EULER, in_sigma_coordinates=True),
    "EulerAncestralDiscreteScheduler": _Scheduler(
        _full(EulerAncestralSpec, EulerAncestral), {}, in_sigma_coordinates=True
    ),
    "HeunDiscreteScheduler": _Scheduler(
        _full(HeunSpec, Heun), _SIGMAS, in_sigma_coordinates=True, ignored=("thresholding",)
    ),
    "DPMSolverMultistepScheduler": _Scheduler(_dpm, _DPM, ignored=("clip_sample",)),
    "UniPCMultistepScheduler": _Scheduler(_unipc, _UNIPC, ignored=("clip_sample",)),
    "FlowMatchEulerDiscreteScheduler": _Scheduler(_flow(Euler), _FLOW, is_flow=True),
    "FlowMatchHeunDiscreteScheduler": _Scheduler(_flow(Heun), _FLOW, is_flow=True),
}
