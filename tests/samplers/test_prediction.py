"""Prediction types: what the network is trained to say, and what is made of it."""

from itertools import product
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lavie.errors import SpecError
from lavie.samplers import FlowScheduleSpec, LinearScheduleSpec
from lavie.samplers.prediction import add_noise, check_prediction, denoised_from, make_denoise, target
from lavie.samplers.schedule import Schedule
from lavie.spec import PredictionType

VP, FLOW = LinearScheduleSpec().build(), FlowScheduleSpec().build()
PAIRS: list[tuple[Schedule, PredictionType]] = list(product((VP, FLOW), get_args(PredictionType)))
each_pair = pytest.mark.parametrize(("schedule", "prediction_type"), PAIRS)


def draw(seed: int, batch: int = 3) -> Tensor:
    return torch.randn(batch, 2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.sampled_from(PAIRS), st.floats(1e-3, 150))
def test_denoised_from_inverts_target(pair: tuple[Schedule, PredictionType], sigma: float) -> None:
    schedule, prediction_type = pair
    latent, noise = draw(0), draw(1)
    model_input = add_noise(latent, noise, sigma, schedule)
    prediction = target(latent, noise, sigma, schedule, prediction_type)
    denoised = denoised_from(prediction, model_input, sigma, schedule, prediction_type)
    torch.testing.assert_close(denoised, latent, rtol=1e-9, atol=1e-9)


@each_pair
def test_a_batch_of_sigmas_acts_on_each_sample_as_its_own_sigma(
    schedule: Schedule, prediction_type: PredictionType
) -> None:
    latent, noise, sigmas = draw(0), draw(1), torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    noisy = add_noise(latent, noise, sigmas, schedule)
    goal = target(latent, noise, sigmas, schedule, prediction_type)
    denoised = denoised_from(goal, noisy, sigmas, schedule, prediction_type)
    for i, sigma in enumerate(sigmas.tolist()):
        one = slice(i, i + 1)
        torch.testing.assert_close(noisy[one], add_noise(latent[one], noise[one], sigma, schedule))
        torch.testing.assert_close(goal[one], target(latent[one], noise[one], sigma, schedule, prediction_type))
        torch.testing.assert_close(denoised[one], latent[one])


def test_training_stays_in_the_dtype_of_the_latent() -> None:
    latent, noise, sigmas = draw(0).float(), draw(1).float(), VP.sigmas[[3, 500, 999]]
    assert add_noise(latent, noise, sigmas, VP).dtype == torch.float32
    assert target(latent, noise, sigmas, VP, "v_prediction").dtype == torch.float32


@each_pair
def test_network_input_keeps_unit_scale(schedule: Schedule, prediction_type: PredictionType) -> None:
    seen: list[Tensor] = []

    def network(noisy: Tensor, timestep: Tensor, cond: None) -> Tensor:
        seen.append(noisy)
        return noisy

    sigma = schedule.sigmas[-1].item()
    make_denoise(network, schedule, prediction_type, None)(sigma * draw(2).float(), sigma)
    assert seen[0].std().item() == pytest.approx(1, abs=0.2)


@each_pair
def test_a_network_that_answers_perfectly_denoises_perfectly(
    schedule: Schedule, prediction_type: PredictionType
) -> None:
    latent, noise, sigma = draw(0), draw(1), schedule.at(700.0)
    told: list[Tensor] = []

    def network(noisy: Tensor, timestep: Tensor, cond: str) -> Tensor:
        assert cond == "the conditioning"
        told.append(timestep)
        return target(latent, noise, sigma, schedule, prediction_type)

    denoise = make_denoise(network, schedule, prediction_type, "the conditioning", dtype=torch.float64)
    torch.testing.assert_close(denoise(latent + sigma * noise, sigma), latent)
    assert told[0].tolist() == [pytest.approx(schedule.timestep(sigma))] * 3


def test_network_sees_its_dtype_and_the_solver_keeps_its_own() -> None:
    def network(noisy: Tensor, timestep: Tensor, cond: None) -> Tensor:
        assert noisy.dtype == torch.bfloat16
        assert timestep.dtype == torch.float32
        return noisy

    denoise = make_denoise(network, VP, "epsilon", None, dtype=torch.bfloat16)
    assert denoise(draw(0).float(), 1.0).dtype == torch.float32


@each_pair
def test_fitting_prediction_types_are_accepted(schedule: Schedule, prediction_type: PredictionType) -> None:
    check_prediction(schedule, prediction_type)


def test_epsilon_is_refused_where_all_is_noise() -> None:
    stretched = LinearScheduleSpec(terminal_sigma=1e8).build()
    for prediction_type in ("v_prediction", "sample", "flow"):
        check_prediction(stretched, prediction_type)
    with pytest.raises(SpecError, match=r"prediction_type: epsilon says nothing of the latent where all is noise"):
        check_prediction(stretched, "epsilon")
    with pytest.raises(SpecError, match="use v_prediction, sample or flow"):
        make_denoise(lambda noisy, timestep, cond: noisy, stretched, "epsilon", None)
