"""Replays a recorded trajectory of another library's sampler through our solvers.

A recording holds, next to the trajectory, what the network answered at each call and the noise that was drawn.
Feeding both to a solver tests the solver alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Noise, Sampler
from lavie.samplers.prediction import denoised_from
from lavie.samplers.recording import Answer, Recording, UnsupportedError, read_recording, recorded_answers
from lavie.samplers.respaced import is_respaced, read_respaced, respaced_answers
from lavie.samplers.schedule import VariancePreserving


@dataclass(frozen=True, eq=False)
class Replay:
    """What our solver made of a recording."""

    trajectory: Float[Tensor, "n b c f h w"]
    """The noisy latent at each call of the network, and the result: to be compared with `x` of the file."""
    timesteps: tuple[float, ...]
    """What the network was told at each call: to be compared with `timesteps` of the file."""


def replay(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Replay:
    """Drive our counterpart of what was recorded with the recorded network outputs and noise.

    Raises:
        UnsupportedError: naming the scheduler or option that lavie has no counterpart for.
    """
    if is_respaced(metadata):
        recording, answer = read_respaced(metadata), respaced_answers(tensors, metadata)
    else:
        recording, answer = read_recording(metadata), recorded_answers(tensors)
    schedule = recording.schedule.build()
    sampler = recording.sampler.build(_with_rounded_table(schedule) if recording.in_float32 else schedule)
    return _drive(sampler, recording, tensors, answer)


def _with_rounded_table(schedule: VariancePreserving) -> VariancePreserving:
    """Return the schedule with the table that diffusers computes in float32.

    Rounding moves the first sigma by 1e-4 of itself, which solvers in log sigma show; what is tested is the solver.
    """
    betas = 1 - schedule.alphas_cumprod / F.pad(schedule.alphas_cumprod[:-1], (1, 0), value=1.0)
    rounded = torch.cumprod(1 - betas.float(), dim=0).double()
    return VariancePreserving(torch.where(rounded > 0, rounded, schedule.alphas_cumprod).tolist())


def _drive(sampler: Sampler, recording: Recording, tensors: Mapping[str, Tensor], answer: Answer) -> Replay:
    schedule = sampler.schedule
    seen: list[Tensor] = []
    timesteps: list[float] = []

    def view(noisy: Tensor, sigma: float) -> Tensor:
        return noisy if recording.in_sigma_coordinates else noisy * schedule.scales(sigma)[0]

    def denoise(noisy: Tensor, sigma: float) -> Tensor:
        model_input, timestep = noisy * schedule.scales(sigma)[0], schedule.timestep(sigma)
        prediction = answer(len(seen), model_input, timestep)
        seen.append(view(noisy, sigma))
        timesteps.append(timestep)
        return denoised_from(prediction, model_input, sigma, schedule, recording.prediction_type)

    initial = tensors["initial_noise"] if "initial_noise" in tensors else tensors["x"][0]
    for step in sampler.steps(denoise, initial, _recorded_noise(tensors)):
        last = step
    if len(seen) < len(tensors["x"]) - 1:
        raise UnsupportedError(f"the recording has {len(tensors['x']) - 1} network calls; our solver makes {len(seen)}")
    return Replay(torch.stack([*seen, view(last.noisy, last.sigma_next)]), tuple(timesteps))


def _recorded_noise(tensors: Mapping[str, Tensor]) -> Noise:
    """Look draws up by the step that used them: a recording may lack those that its scheduler did without."""
    index = tensors.get("step_noise_index", torch.arange(len(tensors.get("step_noise", ()))))
    places = {step: place for place, step in enumerate(index.tolist())}

    def noise(step: int, shape: tuple[int, ...]) -> Tensor:
        if step not in places:
            raise UnsupportedError(f"our solver draws noise at step {step}; the recording has none there")
        return tensors["step_noise"][places[step]].reshape(shape)

    return noise
