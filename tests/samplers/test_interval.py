"""Guidance in a limited interval."""

import pytest
import torch
from torch import Tensor

from lavie.samplers import IntervalSpec

NOISY = torch.ones(1, 1, 1, 1, 1)


def conditional(noisy: Tensor, sigma: float) -> Tensor:
    return noisy


def never(noisy: Tensor, sigma: float) -> Tensor:
    raise AssertionError("the unconditional branch was called")


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0, 5.1, 1e8])
def test_outside_of_the_interval_only_the_conditional_branch_is_run(sigma: float) -> None:
    guided = IntervalSpec(sigma_min=1.0, sigma_max=5.0).build()(conditional, never)
    assert torch.equal(guided(NOISY, sigma), NOISY)


@pytest.mark.parametrize("sigma", [1.001, 3.0, 5.0])
def test_inside_of_it_the_inner_guidance_holds(sigma: float) -> None:
    guided = IntervalSpec(sigma_min=1.0, sigma_max=5.0).build()(conditional, lambda noisy, sigma: 0 * noisy)
    torch.testing.assert_close(guided(NOISY, sigma), 7.5 * NOISY)


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sigma_min 2 must be below sigma_max 1\.5"):
        IntervalSpec(sigma_min=2.0, sigma_max=1.5)
