"""Guidance rescale."""

import pytest
import torch
from torch import Tensor

from lavie.samplers import ClassifierFreeSpec, NoGuidanceSpec, RescaleSpec

NOISY = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def conditional(noisy: Tensor, sigma: float) -> Tensor:
    return 0.5 * noisy + sigma


def unconditional(noisy: Tensor, sigma: float) -> Tensor:
    return 0.2 * noisy.sin() - sigma


def rescaled(share: float) -> Tensor:
    return RescaleSpec(share=share).build()(conditional, unconditional)(NOISY, 2.0)


def spread(x: Tensor) -> Tensor:
    return x.flatten(1).std(dim=1)


def test_the_whole_share_gives_the_spread_of_the_conditional_answer() -> None:
    torch.testing.assert_close(spread(rescaled(1.0)), spread(conditional(NOISY, 2.0)))


def test_a_share_lies_between_the_inner_guidance_and_the_whole() -> None:
    plain = ClassifierFreeSpec().build()(conditional, unconditional)(NOISY, 2.0)
    torch.testing.assert_close(rescaled(0.0), plain)
    torch.testing.assert_close(rescaled(0.7), 0.7 * rescaled(1.0) + 0.3 * plain)


def test_rescaling_the_conditional_answer_changes_nothing() -> None:
    guided = RescaleSpec(inner=NoGuidanceSpec()).build()(conditional, unconditional)
    torch.testing.assert_close(guided(NOISY, 2.0), conditional(NOISY, 2.0))


def test_an_answer_without_any_spread_stays_finite() -> None:
    guided = RescaleSpec().build()(lambda noisy, sigma: torch.zeros_like(noisy), lambda noisy, sigma: 0 * noisy)
    assert guided(NOISY, 2.0).isfinite().all()


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_of_zero_to_one_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        RescaleSpec(share=share)
