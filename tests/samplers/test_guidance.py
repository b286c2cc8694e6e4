"""Guidance: how the two branches are joined, and which are called."""

import pytest
import torch
from torch import Tensor

from lavie.samplers import ClassifierFreeSpec, LinearScheduleSpec, NoGuidanceSpec
from lavie.samplers.prediction import denoised_from

NOISY = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def conditional(noisy: Tensor, sigma: float) -> Tensor:
    return 0.5 * noisy + sigma


def unconditional(noisy: Tensor, sigma: float) -> Tensor:
    return 0.2 * noisy - sigma


def never(noisy: Tensor, sigma: float) -> Tensor:
    raise AssertionError("the unconditional branch was called")


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_a_scale_up_to_one_never_calls_the_unconditional_branch(scale: float) -> None:
    guided = ClassifierFreeSpec(scale=scale).build()(conditional, never)
    assert torch.equal(guided(NOISY, 2.0), conditional(NOISY, 2.0))


def test_no_guidance_never_calls_the_unconditional_branch() -> None:
    guided = NoGuidanceSpec().build()(conditional, never)
    assert torch.equal(guided(NOISY, 2.0), conditional(NOISY, 2.0))


@pytest.mark.parametrize("scale", [1.001, 1.5, 7.5, 100.0])
def test_guidance_goes_from_unconditional_through_conditional(scale: float) -> None:
    guided = ClassifierFreeSpec(scale=scale).build()(conditional, unconditional)
    step = conditional(NOISY, 2.0) - unconditional(NOISY, 2.0)
    torch.testing.assert_close(guided(NOISY, 2.0) - unconditional(NOISY, 2.0), scale * step, rtol=1e-4, atol=1e-3)


def test_guiding_denoised_latents_is_guiding_noise() -> None:
    schedule, sigma, scale = LinearScheduleSpec().build(), 3.0, 7.5
    generator = torch.Generator().manual_seed(1)
    with_text, without = (torch.randn(NOISY.shape, generator=generator) for _ in range(2))
    answers = [denoised_from(noise, NOISY, sigma, schedule, "epsilon") for noise in (with_text, without)]
    guided = ClassifierFreeSpec(scale=scale).build()(lambda *_: answers[0], lambda *_: answers[1])
    expected = denoised_from(without + scale * (with_text - without), NOISY, sigma, schedule, "epsilon")
    torch.testing.assert_close(guided(NOISY, sigma), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [-1.0, 101.0, float("nan")])
def test_absurd_scales_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        ClassifierFreeSpec(scale=scale)
