"""Reads recorded trajectories of the respaced Gaussian diffusion that the official interpolation stage samples with."""

import math
import re
from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float64
from torch import Tensor

from lavie.samplers.base import Sampler, clamp
from lavie.samplers.curves import CosineScheduleSpec
from lavie.samplers.ddim import DDIM, DDIMSpec
from lavie.samplers.ddpm import DDPM, DDPMSpec, Variance
from lavie.samplers.recorded_tables import UnsupportedError
from lavie.samplers.recording import Answer, Recording
from lavie.samplers.schedule import LinearScheduleSpec, VariancePreserving
from lavie.samplers.spacing import section_entries
from lavie.spec import PredictionType

_LINEAR = re.compile(r"linear (\S+)\.\.(\S+), (\d+) steps")
_COSINE = re.compile(r"(?:cosine|squaredcos_cap_v2), (\d+) steps")
_TERM = re.compile(r"([0-9.]+)\*(?:inp\[:, (-?\d*):(-?\d*)\]|(sin\(t/1000\)))")
_MEANS: dict[str, PredictionType] = {
    "epsilon": "epsilon",
    "start_x": "sample",
    "v": "v_prediction",
    "velocity": "v_prediction",
}
_VARIANCES: dict[str, Variance] = {"fixed_small": "fixed_small", "fixed_large": "fixed_large"}


def is_respaced(metadata: Mapping[str, str]) -> bool:
    """Tell whether a file's description is of respaced diffusion."""
    return "respacing" in metadata


def read_respaced(metadata: Mapping[str, str]) -> Recording:
    """Translate a file's description.

    Raises:
        UnsupportedError: naming the option that lavie has no counterpart for.
    """
    schedule = _schedule(metadata["noise_schedule"])
    if metadata["mean_type"].lower() not in _MEANS:
        raise UnsupportedError(f"mean_type={metadata['mean_type']} has no counterpart")
    is_clipped = metadata["clip_denoised"].lower() == "true"
    return Recording(
        _sampler(metadata, schedule),
        _MEANS[metadata["mean_type"].lower()],
        limit=partial(clamp, bound=1.0) if is_clipped else None,
    )


def _schedule(text: str) -> VariancePreserving:
    if found := _LINEAR.fullmatch(text):
        start, end, count = found.groups()
        spec = LinearScheduleSpec(beta_start=float(start), beta_end=float(end), num_train_timesteps=int(count))
        return spec.build()
    if found := _COSINE.fullmatch(text):
        return CosineScheduleSpec(num_train_timesteps=int(found.group(1))).build()
    raise UnsupportedError(f"noise_schedule={text} has no counterpart")


def _sampler(metadata: Mapping[str, str], schedule: VariancePreserving) -> Sampler:
    """Build the sampler; its noise levels, one after the other, are those of the timesteps that are retained."""
    text, eta = metadata["respacing"], float(metadata.get("eta", "0"))
    is_implicit, variance = "ddim_sample_loop" in metadata["sampler"], _VARIANCES.get(metadata["var_type"])
    if not is_implicit and ("p_sample_loop" not in metadata["sampler"] or variance is None):
        raise UnsupportedError(f"{metadata['sampler']} with var_type={metadata['var_type']} has no counterpart")
    if text.isdigit() and int(text) > 1:
        count = int(text)
        if is_implicit or variance is None:
            spec = DDIMSpec(num_inference_steps=count, spacing="respaced", set_alpha_to_one=True, eta=eta)
            return spec.build(schedule)
        return DDPMSpec(num_inference_steps=count, spacing="respaced", variance=variance).build(schedule)
    retained = retained_timesteps(text, schedule.num_train_timesteps)
    sigmas = [*(schedule.at(float(timestep)) for timestep in reversed(retained)), 0.0]
    if is_implicit or variance is None:
        return DDIM(schedule, sigmas, sigmas[1:], eta=eta, clip=None)
    return DDPM(schedule, sigmas, variance=variance, clip=None)


def retained_timesteps(text: str, num_train_timesteps: int) -> list[int]:
    """Return the timesteps that a text keeps: `50` of all, `10,20,30` of sections, `ddim25` in a whole stride.

    Raises:
        UnsupportedError: if it is none of them, or does not fit.
    """
    if found := re.fullmatch(r"ddim(\d+)", text):
        count = int(found.group(1))
        for stride in range(1, num_train_timesteps):
            if len(range(0, num_train_timesteps, stride)) == count:
                return list(range(0, num_train_timesteps, stride))
        raise UnsupportedError(f"respacing={text} has no counterpart: no whole stride makes {count} timesteps")
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise UnsupportedError(f"respacing={text} has no counterpart")
    try:
        return section_entries(num_train_timesteps, [int(count) for count in text.split(",")])
    except ValueError as error:
        raise UnsupportedError(f"respacing={text} has no counterpart: {error}") from None


def respaced_tables(sigmas: Float64[Tensor, " n"]) -> dict[str, Tensor]:
    """Return the tables that respaced diffusion keeps, from the noise levels of a trajectory (arXiv 2102.09672, §4).

    A step's beta is what turns the signal left after the step before into what is left after it.
    """
    alphas = 1 / (1 + sigmas.flip(0).square())
    before, after = alphas[:-1], alphas[1:]
    betas = 1 - after / before
    return {
        "betas": betas,
        "alphas_cumprod": after,
        "alphas_cumprod_prev": before,
        "posterior_variance": betas * (1 - before) / (1 - after),
    }


def respaced_answers(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Answer:
    """Return the stand-in network that the file was made with: these files hold its formula, not its outputs.

    Raises:
        UnsupportedError: if the formula is another one.
    """
    formula = metadata["model"].partition("=")[2].partition(", inp")[0].partition(";")[0]
    terms = [(float(weight), first, last, sine) for weight, first, last, sine in _TERM.findall(formula)]
    if not terms or _TERM.sub("", formula).replace("+", "").strip():
        raise UnsupportedError(f"model={metadata['model']!r} is not known")
    further = [tensors[name].double() for name in ("mask", "cond") if name in tensors]

    def answer(index: int, model_input: Tensor, timestep: float) -> Tensor:
        everything, total = torch.cat((model_input, *further), dim=1), torch.zeros_like(model_input)
        for weight, first, last, sine in terms:
            channels = slice(int(first) if first else None, int(last) if last else None)
            total += weight * (math.sin(timestep / 1000) if sine else everything[:, channels])
        return total

    return answer
