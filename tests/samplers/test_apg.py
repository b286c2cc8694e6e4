"""Adaptive projected guidance: projection, bound and momentum, each by itself."""

import math

import pytest
import torch
from torch import Tensor

from lavie.samplers import AdaptiveProjectedSpec, ClassifierFreeSpec

SIZE = (2, 4, 3, 4, 4)
WITH, WITHOUT = (torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
PLAIN = {"norm_threshold": None, "momentum": 0.0}


def conditional(noisy: Tensor, sigma: float) -> Tensor:
    return WITH


def unconditional(noisy: Tensor, sigma: float) -> Tensor:
    return WITHOUT


def never(noisy: Tensor, sigma: float) -> Tensor:
    raise AssertionError("the unconditional branch was called")


def step(**options: float | None) -> Tensor:
    """Return what guidance of scale 2 adds to the conditional answer: the tamed step."""
    return AdaptiveProjectedSpec(scale=2.0, **options).build()(conditional, unconditional)(WITH, 2.0) - WITH


def dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).flatten(1).sum(dim=1)


def test_without_projection_bound_and_momentum_it_is_classifier_free_guidance() -> None:
    ours = AdaptiveProjectedSpec(scale=5.0, parallel=1.0, **PLAIN).build()(conditional, unconditional)
    theirs = ClassifierFreeSpec(scale=5.0).build()(conditional, unconditional)
    torch.testing.assert_close(ours(WITH, 2.0), theirs(WITH, 2.0))


def test_the_step_is_orthogonal_to_the_conditional_answer() -> None:
    assert dot(step(**PLAIN), WITH).abs().max() < 1e-10
    assert dot(WITH - WITHOUT, WITH).abs().min() > 1


def test_a_share_of_the_parallel_part_is_kept() -> None:
    kept = dot(step(parallel=0.25, **PLAIN), WITH)
    torch.testing.assert_close(kept, 0.25 * dot(WITH - WITHOUT, WITH))


def test_the_step_is_bounded_for_the_average_frame() -> None:
    long = step(parallel=1.0, norm_threshold=2.0, momentum=0.0)
    torch.testing.assert_close(dot(long, long).sqrt(), torch.full((2,), 2.0 * math.sqrt(SIZE[2])).double())
    short = step(parallel=1.0, norm_threshold=1e3, momentum=0.0)
    torch.testing.assert_close(short, WITH - WITHOUT)


def test_momentum_carries_the_step_before_until_the_noise_level_rises() -> None:
    options = {"parallel": 1.0, "norm_threshold": None, "momentum": -0.5}
    guided = AdaptiveProjectedSpec(scale=2.0, **options).build()(conditional, unconditional)
    found = [guided(WITH, sigma) - WITH for sigma in (9.0, 5.0, 5.0, 9.0, 1.0)]
    weights = [1.0, 0.5, 0.75, 1.0, 0.5]
    for weight, each in zip(weights, found, strict=True):
        torch.testing.assert_close(each, weight * (WITH - WITHOUT))


def test_a_scale_up_to_one_never_calls_the_unconditional_branch() -> None:
    assert AdaptiveProjectedSpec(scale=1.0).build()(conditional, never)(WITH, 2.0) is WITH


def test_an_answer_of_nothing_stays_finite() -> None:
    guided = AdaptiveProjectedSpec().build()(lambda noisy, sigma: 0 * noisy, lambda noisy, sigma: 0 * noisy)
    assert torch.equal(guided(WITH, 2.0), torch.zeros_like(WITH))


@pytest.mark.parametrize("momentum", [-1.0, 1.0])
def test_momentum_that_never_fades_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match="momentum"):
        AdaptiveProjectedSpec(momentum=momentum)
