"""Reads recorded trajectories of the respaced Gaussian diffusion that the official interpolation stage samples with."""

import math
import re
from collections.abc import Mapping

from torch import Tensor

from lavie.samplers.base import SamplerSpec
from lavie.samplers.ddim import DDIMSpec
from lavie.samplers.ddpm import DDPMSpec, Variance
from lavie.samplers.recording import Answer, Recording, UnsupportedError
from lavie.samplers.schedule import LinearScheduleSpec

_SCHEDULE = re.compile(r"linear (\S+)\.\.(\S+), (\d+) steps")
_NETWORK = re.compile(r"eps = (\S+)\*inp\[:, :4\] \+ (\S+)\*inp\[:, -4:\] \+ (\S+)\*sin\(t/1000\)")


def is_respaced(metadata: Mapping[str, str]) -> bool:
    """Tell whether a file's description is of respaced diffusion."""
    return "respacing" in metadata


def read_respaced(metadata: Mapping[str, str]) -> Recording:
    """Translate a file's description.

    Raises:
        UnsupportedError: naming the option that lavie has no counterpart for.
    """
    schedule = _SCHEDULE.fullmatch(metadata["noise_schedule"])
    if schedule is None:
        raise UnsupportedError(f"noise_schedule={metadata['noise_schedule']} has no counterpart")
    for option, known in (("mean_type", "epsilon"), ("clip_denoised", "false")):
        if metadata[option].lower() != known:
            raise UnsupportedError(f"{option}={metadata[option]} has no counterpart")
    if not metadata["respacing"].isdigit():
        raise UnsupportedError(f"respacing={metadata['respacing']} has no counterpart; one number of steps has")
    beta_start, beta_end, num_train_timesteps = schedule.groups()
    return Recording(
        LinearScheduleSpec(
            beta_start=float(beta_start), beta_end=float(beta_end), num_train_timesteps=int(num_train_timesteps)
        ),
        _sampler(metadata),
        "epsilon",
        in_sigma_coordinates=False,
        in_float32=False,
    )


def _sampler(metadata: Mapping[str, str]) -> SamplerSpec:
    count = int(metadata["respacing"])
    if "ddim_sample_loop" in metadata["sampler"]:
        eta = float(metadata.get("eta", "0"))
        return DDIMSpec(num_inference_steps=count, spacing="respaced", set_alpha_to_one=True, eta=eta)
    variances: dict[str, Variance] = {"fixed_small": "fixed_small", "fixed_large": "fixed_large"}
    if "p_sample_loop" not in metadata["sampler"] or metadata["var_type"] not in variances:
        raise UnsupportedError(f"{metadata['sampler']} with var_type={metadata['var_type']} has no counterpart")
    return DDPMSpec(num_inference_steps=count, spacing="respaced", variance=variances[metadata["var_type"]])


def respaced_answers(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Answer:
    """Return the stand-in network that the file was made with: these files hold its formula, not its outputs.

    Raises:
        UnsupportedError: if the formula is another one.
    """
    network = _NETWORK.search(metadata["model"])
    if network is None:
        raise UnsupportedError(f"model={metadata['model']!r} is not known")
    noisy_weight, cond_weight, time_weight = map(float, network.groups())
    cond = tensors["cond"][:, -4:]

    def answer(index: int, model_input: Tensor, timestep: float) -> Tensor:
        return noisy_weight * model_input[:, :4] + cond_weight * cond + time_weight * math.sin(timestep / 1000)

    return answer
