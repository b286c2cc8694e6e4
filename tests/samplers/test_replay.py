"""Replaying recordings: what is refused, and by which name."""

import json

import pytest
import torch
from torch import Tensor

from lavie.samplers import DDIMSpec, DDPMSpec, EulerSpec, LinearScheduleSpec, UnsupportedError, replay
from lavie.samplers.recording import read_recording
from lavie.samplers.respaced import read_respaced, respaced_answers

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


def test_the_old_ddpm_has_neither_offset_nor_spacing() -> None:
    new = read_recording(describe("DDPMScheduler", {"timestep_spacing": "trailing"})).sampler
    old = read_recording(describe("DDPMScheduler@0.16", diffusers_version="0.16.0")).sampler
    assert new == DDPMSpec(num_inference_steps=5, offset=1, spacing="trailing")
    assert old == DDPMSpec(num_inference_steps=5, offset=0)


def test_the_old_ddim_has_an_offset() -> None:
    old = read_recording(describe("DDIMScheduler", diffusers_version="0.16.0")).sampler
    assert old == DDIMSpec(num_inference_steps=5, offset=1, stride="constant")


def test_options_of_the_step_are_read() -> None:
    recording = read_recording(describe("DDIMScheduler", {"clip_sample": True}, step_kwargs='{"eta": 0.5}'))
    assert recording.sampler == DDIMSpec(num_inference_steps=5, offset=1, stride="constant", eta=0.5, clip=1.0)


def test_options_that_a_scheduler_ignores_are_ignored() -> None:
    recording = read_recording(describe("EulerDiscreteScheduler", {"clip_sample": True, "set_alpha_to_one": True}))
    assert recording.sampler == EulerSpec(num_inference_steps=5, spacing="leading", offset=1)
    assert recording.in_sigma_coordinates


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (describe("FooScheduler"), "scheduler FooScheduler is not known; known: DDIMScheduler"),
        (describe("DDIMScheduler", {"thresholding": True}), "thresholding=true of DDIMScheduler"),
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


RESPACED = {
    "respacing": "15",
    "noise_schedule": "linear 1e-4..0.02, 1000 steps",
    "mean_type": "epsilon",
    "var_type": "fixed_large",
    "clip_denoised": "false",
    "sampler": "reference respaced gaussian diffusion, ddim_sample_loop",
    "eta": "0.5",
}


def test_respaced_diffusion_is_read() -> None:
    implicit = read_respaced(RESPACED)
    assert implicit.schedule == LinearScheduleSpec()
    assert implicit.sampler == DDIMSpec(num_inference_steps=15, spacing="respaced", set_alpha_to_one=True, eta=0.5)
    ancestral = read_respaced({**RESPACED, "sampler": "p_sample_loop (ancestral)"}).sampler
    assert ancestral == DDPMSpec(num_inference_steps=15, spacing="respaced", variance="fixed_large")


@pytest.mark.parametrize(
    "option",
    [
        {"respacing": "10,20"},
        {"noise_schedule": "cosine"},
        {"mean_type": "v"},
        {"clip_denoised": "true"},
        {"sampler": "plms"},
        {"sampler": "p_sample_loop", "var_type": "learned"},
    ],
    ids=str,
)
def test_respaced_diffusion_of_another_kind_is_refused_by_name(option: dict[str, str]) -> None:
    with pytest.raises(UnsupportedError, match=next(iter(option.values()))):
        read_respaced({**RESPACED, **option})


def test_an_unknown_stand_in_network_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="model='another' is not known"):
        respaced_answers({}, {"model": "another"})


@pytest.mark.parametrize(("num_calls", "message"), [(4, "ends after 4 network calls"), (6, "has 6 network calls")])
def test_a_recording_with_another_number_of_calls_is_refused(num_calls: int, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        replay(tensors(num_calls), describe("DDIMScheduler"))


def test_missing_noise_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="draws noise at step 0; the recording has none there"):
        replay(tensors(5), describe("DDPMScheduler"))
