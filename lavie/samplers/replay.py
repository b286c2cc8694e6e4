"""Replays a recorded trajectory of a diffusers scheduler through our solvers.

A recording holds, next to the trajectory, what the network answered at each call and the noise that was drawn.
Feeding both to a solver tests the solver alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Noise, Sampler
from lavie.samplers.prediction import denoised_from
from lavie.samplers.recording import Recording, UnsupportedError, read_recording


@dataclass(frozen=True, eq=False)
class Replay:
    """What our solver made of a recording."""

    trajectory: Float[Tensor, "n b c f h w"]
    """The noisy latent at each call of the network, and the result: to be compared with `x` of the file."""
    timesteps: tuple[float, ...]
    """What the network was told at each call: to be compared with `timesteps` of the file."""


def replay(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Replay:
    """Drive our counterpart of the recorded scheduler with the recorded network outputs and noise.

    Raises:
        UnsupportedError: naming the scheduler or option that lavie has no counterpart for.
    """
    recording = read_recording(metadata)
    sampler = recording.sampler.build(recording.schedule.build())
    return _drive(sampler, recording, tensors)


def _drive(sampler: Sampler, recording: Recording, tensors: Mapping[str, Tensor]) -> Replay:
    schedule, outputs = sampler.schedule, tensors["model_output"]
    seen: list[Tensor] = []
    timesteps: list[float] = []

    def view(noisy: Tensor, sigma: float) -> Tensor:
        return noisy if recording.in_sigma_coordinates else noisy * schedule.scales(sigma)[0]

    def denoise(noisy: Tensor, sigma: float) -> Tensor:
        if len(seen) == len(outputs):
            raise UnsupportedError(f"the recording ends after {len(outputs)} network calls; our solver makes more")
        prediction = outputs[len(seen)].to(noisy.dtype)
        seen.append(view(noisy, sigma))
        timesteps.append(schedule.timestep(sigma))
        model_input = noisy * schedule.scales(sigma)[0]
        return denoised_from(prediction, model_input, sigma, schedule, recording.prediction_type)

    for step in sampler.steps(denoise, tensors["initial_noise"], _recorded_noise(tensors)):
        last = step
    if len(seen) < len(outputs):
        raise UnsupportedError(f"the recording has {len(outputs)} network calls; our solver makes {len(seen)}")
    return Replay(torch.stack([*seen, view(last.noisy, last.sigma_next)]), tuple(timesteps))


def _recorded_noise(tensors: Mapping[str, Tensor]) -> Noise:
    """Look draws up by the step that used them: a recording may lack those that its scheduler did without."""
    index = tensors.get("step_noise_index", torch.empty(0))
    places = {int(step): place for place, step in enumerate(index.tolist())}

    def noise(step: int, shape: tuple[int, ...]) -> Tensor:
        if step not in places:
            raise UnsupportedError(f"our solver draws noise at step {step}; the recording has none there")
        return tensors["step_noise"][places[step]].reshape(shape)

    return noise
