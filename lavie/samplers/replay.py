"""Replays a recorded trajectory of another library's sampler through our solvers.

A recording holds, next to the trajectory, what the network answered at each call and the noise that was drawn.
Feeding both to a solver tests the solver alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lavie.samplers.base import Noise
from lavie.samplers.prediction import denoised_from
from lavie.samplers.recorded_tables import UnsupportedError
from lavie.samplers.recording import Answer, Recording, read_recording, recorded_answers
from lavie.samplers.respaced import is_respaced, read_respaced, respaced_answers


@dataclass(frozen=True, eq=False)
class Replay:
    """What our solver made of a recording, in float64 throughout."""

    trajectory: Float[Tensor, "n b c f h w"]
    """The noisy latent at each call of the network, and the result: to be compared with `x` of the file."""
    denoised: Float[Tensor, "m b c f h w"]
    """The clean latent that each call amounted to."""
    timesteps: tuple[float, ...]
    """What the network was told at each call: to be compared with `timesteps` of the file."""
    sigmas: Float64[Tensor, " n"]
    """The noise level at each call, and that of the result."""


def replay(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Replay:
    """Drive our counterpart of what was recorded with the recorded network outputs and noise.

    Raises:
        UnsupportedError: naming the scheduler or option that lavie has no counterpart for.
    """
    if is_respaced(metadata):
        return _drive(read_respaced(metadata), tensors, respaced_answers(tensors, metadata))
    return _drive(read_recording(metadata), tensors, recorded_answers(tensors))


def _drive(recording: Recording, tensors: Mapping[str, Tensor], answer: Answer) -> Replay:
    sampler, schedule = recording.sampler, recording.sampler.schedule
    seen: list[Tensor] = []
    found: list[Tensor] = []
    calls: list[tuple[float, float]] = []

    def view(noisy: Tensor, sigma: float) -> Tensor:
        return noisy if recording.in_sigma_coordinates else noisy * schedule.scales(sigma)[0]

    def denoise(noisy: Tensor, sigma: float) -> Tensor:
        model_input, timestep = noisy * schedule.scales(sigma)[0], schedule.timestep(sigma)
        prediction = answer(len(seen), model_input, timestep)
        denoised = denoised_from(prediction, model_input, sigma, schedule, recording.prediction_type)
        seen.append(view(noisy, sigma))
        found.append(denoised if recording.limit is None else recording.limit(denoised))
        calls.append((timestep, sigma))
        return found[-1]

    initial = tensors["initial_noise"] if "initial_noise" in tensors else tensors["x"][0]
    for step in sampler.steps(denoise, initial.double(), _recorded_noise(tensors)):
        last = step
    if len(seen) < len(tensors["x"]) - 1:
        raise UnsupportedError(f"the recording has {len(tensors['x']) - 1} network calls; our solver makes {len(seen)}")
    timesteps, sigmas = zip(*calls, strict=True)
    return Replay(
        torch.stack([*seen, view(last.noisy, last.sigma_next)]),
        torch.stack(found),
        timesteps,
        torch.tensor([*sigmas, last.sigma_next], dtype=torch.float64),
    )


def _recorded_noise(tensors: Mapping[str, Tensor]) -> Noise:
    """Look draws up by the step that used them: a recording may lack those that its scheduler did without."""
    index = tensors.get("step_noise_index", torch.arange(len(tensors.get("step_noise", ()))))
    places = {step: place for place, step in enumerate(index.tolist())}

    def noise(step: int, shape: tuple[int, ...]) -> Tensor:
        if step not in places:
            raise UnsupportedError(f"our solver draws noise at step {step}; the recording has none there")
        return tensors["step_noise"][places[step]].reshape(shape)

    return noise
