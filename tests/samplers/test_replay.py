"""Replaying recordings: what is refused, and by which name."""

import json

import pytest
import torch
from torch import Tensor

from lavie.samplers import Sampler, UnsupportedError, replay
from lavie.samplers.ddim import DDIM
from lavie.samplers.dpmpp import DPMPP2M
from lavie.samplers.dpmpp_sde import DPMPP2MSDE
from lavie.samplers.euler import Euler
from lavie.samplers.euler_ancestral import EulerAncestral
from lavie.samplers.recording import read_recording

CONFIG = {
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "variance_type": "fixed_small",
    "clip_sample": False,
    "skip_prk_steps": True,
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
}


def describe(scheduler: str, config: dict[str, object] | None = None, **metadata: str) -> dict[str, str]:
    return {
        "scheduler": scheduler,
        "config_effective": json.dumps({**CONFIG, **(config or {})}),
        "prediction_type": "epsilon",
        "num_inference_steps": "5",
        "step_kwargs": "{}",
        "diffusers_version": "0.42.1",
        **metadata,
    }


def tensors(num_calls: int) -> dict[str, Tensor]:
    start = torch.ones(1, 4, 2, 4, 4)
    return {
        "initial_noise": start,
        "model_output": torch.zeros(num_calls, *start.shape),
        "x": torch.ones(num_calls + 1, *start.shape),
    }


def sampler_of(scheduler: str, config: dict[str, object] | None = None, **metadata: str) -> Sampler:
    return read_recording(describe(scheduler, config, **metadata)).sampler


def test_the_old_ddpm_has_neither_offset_nor_spacing() -> None:
    new = sampler_of("DDPMScheduler", {"timestep_spacing": "trailing"})
    old = sampler_of("DDPMScheduler@0.16", diffusers_version="0.16.0")
    assert [round(timestep) for timestep in new.timesteps] == [999, 799, 599, 399, 199]
    assert [round(timestep) for timestep in old.timesteps] == [800, 600, 400, 200, 0]


def test_the_old_ddim_has_an_offset() -> None:
    old = sampler_of("DDIMScheduler", diffusers_version="0.16.0")
    assert [round(timestep) for timestep in old.timesteps] == [801, 601, 401, 201, 1]


def test_options_of_the_step_are_read() -> None:
    sampler = sampler_of("DDIMScheduler", {"clip_sample": True}, step_kwargs='{"eta": 0.5}')
    assert isinstance(sampler, DDIM)
    assert (sampler.eta, sampler.clip) == (0.5, 1.0)


def test_options_that_a_scheduler_ignores_are_ignored() -> None:
    ignored = {"clip_sample": True, "set_alpha_to_one": True, "thresholding": True}
    recording = read_recording(describe("EulerDiscreteScheduler", ignored))
    assert isinstance(recording.sampler, Euler)
    assert recording.sampler.timesteps == pytest.approx([801, 601, 401, 201, 1])
    assert recording.limit is None
    assert recording.in_sigma_coordinates
    plain, karras = (
        sampler_of("EulerAncestralDiscreteScheduler", {"use_karras_sigmas": flag}) for flag in (False, True)
    )
    assert torch.equal(plain.sigmas, karras.sigmas)


@pytest.mark.parametrize(
    ("algorithm", "order", "solver"),
    [
        ("dpmsolver++", 1, Euler),
        ("dpmsolver++", 2, DPMPP2M),
        ("sde-dpmsolver++", 1, EulerAncestral),
        ("sde-dpmsolver++", 2, DPMPP2MSDE),
    ],
)
def test_one_scheduler_stands_for_several_solvers(algorithm: str, order: int, solver: type[Sampler]) -> None:
    config = {"algorithm_type": algorithm, "solver_order": order}
    assert type(sampler_of("DPMSolverMultistepScheduler", config)) is solver


LIMITS = {"clip_sample_range": 2.0, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 3.0}


@pytest.mark.parametrize(
    ("scheduler", "option", "largest"),
    [
        ("DDPMScheduler", "clip_sample", 2.0),
        ("LCMScheduler", "clip_sample", 2.0),
        ("HeunDiscreteScheduler", "clip_sample", 2.0),
        ("LCMScheduler", "thresholding", 1.0),
        ("UniPCMultistepScheduler", "thresholding", 1.0),
        ("UniPCMultistepScheduler", "clip_sample", None),
        ("DDIMScheduler", "clip_sample", None),
    ],
)
def test_limits_of_the_predicted_latent_are_those_of_the_scheduler(
    scheduler: str, option: str, largest: float | None
) -> None:
    more = {"original_inference_steps": 50, "timestep_scaling": 10.0}
    limit = read_recording(describe(scheduler, {**LIMITS, **more, option: True})).limit
    if largest is None:
        assert limit is None
    else:
        assert limit is not None
        assert limit(9.0 * torch.ones(1, 4, 2, 4, 4)).max() == largest


def test_implicit_sampling_limits_the_direction_too_if_told_to() -> None:
    metadata = describe("DDIMScheduler", {"clip_sample": True}, step_kwargs='{"use_clipped_model_output": true}')
    assert read_recording(metadata).limit is not None


def test_straight_paths_are_read() -> None:
    config = {"shift": 3.0, "num_train_timesteps": 1000}
    recording = read_recording(describe("FlowMatchEulerDiscreteScheduler", config))
    assert recording.prediction_type == "flow"
    first = 3 * 0.001 / 1.002
    places = [1 + (first - 1) * index / 4 for index in range(5)]
    assert recording.sampler.timesteps == pytest.approx([3000 * t / (1 + 2 * t) for t in places], abs=1e-3)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (describe("FooScheduler"), "scheduler FooScheduler is not known; known: DDIMScheduler"),
        (describe("DDIMScheduler", {"thresholding": True}), "thresholding=True of DDIMScheduler"),
        (describe("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}), "dpmsolver of order"),
        (describe("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}), "final_sigmas_type='sigma_min'"),
        (describe("DDIMScheduler", {"beta_end": 2.0}), "no such noise table"),
        (describe("DDIMScheduler", {"beta_schedule": "exp"}), "beta_schedule=exp"),
        (describe("DDPMScheduler", {"variance_type": "learned"}), "variance_type=learned"),
        (describe("DDPMScheduler", prediction_type="score"), "prediction_type=score"),
        (describe("EulerDiscreteScheduler", step_kwargs='{"s_churn": 1.0}'), "s_churn=1.0 of EulerDiscrete"),
        (describe("DDIMScheduler", {"timestep_spacing": "linspace"}, num_inference_steps="1"), "one step .* linspace"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(metadata: dict[str, str], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        read_recording(metadata)


@pytest.mark.parametrize(("num_calls", "message"), [(4, "ends after 4 network calls"), (6, "has 6 network calls")])
def test_a_recording_with_another_number_of_calls_is_refused(num_calls: int, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        replay(tensors(num_calls), describe("DDIMScheduler"))


def test_missing_noise_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="draws noise at step 0; the recording has none there"):
        replay(tensors(5), describe("DDPMScheduler"))
