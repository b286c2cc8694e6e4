"""What the network's output means: noise, velocity, the clean latent or the flow; pure functions for all of them.

With y = α·latent + σ̂·noise as network input: `epsilon` is the noise (arXiv 2006.11239), `v_prediction` is
α·noise - σ̂·latent (arXiv 2202.00512), `sample` is the latent, and `flow` is noise - latent (arXiv 2209.03003). Each of
them, together with y, is two equations in latent and noise: all go with every schedule, wherever α is not zero.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lavie.errors import Fault, SpecError
from lavie.samplers.schedule import ENDLESS, Schedule
from lavie.spec import PredictionType

C = TypeVar("C")


def check_prediction(schedule: Schedule, prediction_type: PredictionType) -> None:
    """Refuse a prediction type that says nothing of the latent at some noise level of the schedule.

    Raises:
        SpecError: with the reason and what fits.
    """
    last = schedule.sigmas[-1].item()
    if prediction_type == "epsilon" and last > ENDLESS:
        reason = f"says nothing of the latent where all is noise (sigma {last:.3g}); use v_prediction, sample or flow"
        raise SpecError([Fault("prediction_type", f"epsilon {reason}")])


def add_noise(
    latent: Float[Tensor, "b c f h w"],
    noise: Float[Tensor, "b c f h w"],
    sigma: float | Float[Tensor, " b"],
    schedule: Schedule,
) -> Float[Tensor, "b c f h w"]:
    """Return what the network sees of a latent at a noise level: α·latent + σ̂·noise."""
    alpha, sigma_hat = _coefficients(sigma, schedule, latent)
    return alpha * latent + sigma_hat * noise


def target(
    latent: Float[Tensor, "b c f h w"],
    noise: Float[Tensor, "b c f h w"],
    sigma: float | Float[Tensor, " b"],
    schedule: Schedule,
    prediction_type: PredictionType,
) -> Float[Tensor, "b c f h w"]:
    """Return what the network is trained to answer."""
    match prediction_type:
        case "epsilon":
            return noise
        case "v_prediction":
            alpha, sigma_hat = _coefficients(sigma, schedule, latent)
            return alpha * noise - sigma_hat * latent
        case "sample":
            return latent
        case "flow":
            return noise - latent


def denoised_from(
    prediction: Float[Tensor, "b c f h w"],
    model_input: Float[Tensor, "b c f h w"],
    sigma: float | Float[Tensor, " b"] | Float[Tensor, "b f"],
    schedule: Schedule,
    prediction_type: PredictionType,
) -> Float[Tensor, "b c f h w"]:
    """Return the clean latent that a prediction about `model_input` amounts to; inverts `target`."""
    alpha, sigma_hat = _coefficients(sigma, schedule, model_input)
    match prediction_type:
        case "epsilon":
            return (model_input - sigma_hat * prediction) / alpha
        case "v_prediction":
            return (alpha * model_input - sigma_hat * prediction) / (alpha * alpha + sigma_hat * sigma_hat)
        case "sample":
            return prediction
        case "flow":
            return (model_input - sigma_hat * prediction) / (alpha + sigma_hat)


def make_denoise(
    network: Callable[[Tensor, Tensor, C], Tensor],
    schedule: Schedule,
    prediction_type: PredictionType,
    cond: C,
    dtype: torch.dtype = torch.float32,
) -> Callable[[Tensor, float | Tensor], Tensor]:
    """Turn a network and its conditioning into a function from (noisy in sigma coordinates, sigma) to denoised.

    Sigmas `b f` give every frame a noise level of its own, and the network a timestep for each. The network sees
    `dtype`; everything around it stays in the dtype of `noisy`.

    Raises:
        SpecError: if the prediction type does not go with the schedule.
    """
    check_prediction(schedule, prediction_type)

    def denoise(noisy: Float[Tensor, "b c f h w"], sigma: float | Float[Tensor, "b f"]) -> Float[Tensor, "b c f h w"]:
        alpha, _ = _coefficients(sigma, schedule, noisy)
        model_input = noisy * alpha
        timestep = _timestep(sigma, schedule, noisy)
        prediction = network(model_input.to(dtype), timestep, cond).to(noisy.dtype)
        return denoised_from(prediction, model_input, sigma, schedule, prediction_type)

    return denoise


def _timestep(
    sigma: float | Tensor, schedule: Schedule, noisy: Float[Tensor, "b c f h w"]
) -> Float[Tensor, " b"] | Float[Tensor, "b f"]:
    """Return what the network is told: one timestep per sample, or one per frame."""
    if not isinstance(sigma, Tensor):
        return torch.full((len(noisy),), schedule.timestep(sigma), dtype=torch.float32, device=noisy.device)
    told = torch.tensor([schedule.timestep(each) for each in sigma.flatten().tolist()], dtype=torch.float32)
    return told.reshape(sigma.shape).to(noisy.device)


def _coefficients(
    sigma: float | Tensor, schedule: Schedule, like: Tensor
) -> tuple[float, float] | tuple[Tensor, Tensor]:
    """Return α and σ̂, computed in float64 and shaped to multiply `like`; sigmas are one, `b` or `b f`."""
    if not isinstance(sigma, Tensor):
        return schedule.scales(sigma)
    axes = "b -> b 1 1 1 1" if sigma.ndim == 1 else "b f -> b 1 f 1 1"
    alpha, sigma_hat = schedule.scales(rearrange(sigma.double(), axes))
    return alpha.to(like), sigma_hat.to(like)
