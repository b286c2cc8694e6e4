"""Dynamic thresholding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lavie.samplers import DynamicThresholdingSpec, NoGuidanceSpec
from lavie.samplers.thresholding import threshold


def draw(scale: float = 1.0) -> Tensor:
    return scale * torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@given(st.floats(0.01, 1.0), st.sampled_from([0.1, 1.0, 10.0]))
def test_values_are_clamped_at_their_own_quantile_and_scaled_to_the_bound(quantile: float, scale: float) -> None:
    x = draw(scale)
    found = threshold(x, quantile, bound=1.0)
    limits = torch.quantile(x.abs().flatten(1), quantile, dim=1)
    for one, limit, result in zip(x, limits.clamp_min(1.0).tolist(), found, strict=True):
        torch.testing.assert_close(result, one.clamp(-limit, limit) / limit)
    assert found.abs().max() <= 1 + 1e-12


def test_what_is_inside_of_the_bound_is_left_alone() -> None:
    x = draw().clamp(-2, 2)
    torch.testing.assert_close(threshold(x, 0.995, bound=2.0), x)


def test_no_clamp_is_beyond_the_largest_allowed() -> None:
    x = draw(10.0)
    torch.testing.assert_close(threshold(x, 1.0, bound=1.0, most=3.0), x.clamp(-3, 3) / 3)


def test_it_bounds_what_its_inner_guidance_says() -> None:
    spec = DynamicThresholdingSpec(inner=NoGuidanceSpec(), quantile=1.0, bound=2.0)
    guided = spec.build()(lambda noisy, sigma: noisy, lambda noisy, sigma: noisy)
    found = guided(draw(10.0), 1.0)
    torch.testing.assert_close(found.abs().flatten(1).amax(dim=1), torch.full((2,), 2.0).double())


def test_rows_too_long_for_a_sort_are_taken() -> None:
    """A latent of 61 frames of 320×512 has 40 million numbers; torch.quantile takes 16 million."""
    x = torch.linspace(-1, 1, 2**24 + 2).reshape(1, 1, 1, 1, -1)
    assert threshold(x, 0.5, bound=0.1).abs().max().item() == pytest.approx(0.1)
