"""FreeU: what is scaled on the way up, and by how much."""

import math

import pytest
import torch
from torch import Tensor

from lavie.blocks.base import Conditioning
from lavie.blocks.free_u import FreeUSpec, scale_backbone, scale_low_frequencies
from lavie.blocks.layout import join_channels
from lavie.blocks.transformer import TransformerSpec
from lavie.blocks.unet import NormSpec, UNet3D, UNetSpec
from lavie.spec import PerLevel


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def wave(rows: int, columns: int, size: int = 8) -> Tensor:
    """Return one frame of a plane wave with so many periods along each axis."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.cos(2 * math.pi * (rows * y + columns * x) / size).reshape(1, 1, 1, size, size)


def test_only_the_first_half_of_the_channels_is_scaled() -> None:
    x = draw(2, 6, 3, 4, 4)
    scaled = scale_backbone(x, 1.5)
    assert torch.equal(scaled[:, 3:], x[:, 3:])
    assert not torch.isclose(scaled[:, :3], x[:, :3]).all()


def test_scaling_grows_from_one_to_the_factor_with_the_mean_of_the_channels() -> None:
    x = draw(2, 6, 3, 4, 4)
    strength = (scale_backbone(x, 1.5) / x)[:, 0]
    mean = x.mean(dim=1)
    for frame, by in zip(mean.flatten(0, 1), strength.flatten(0, 1), strict=True):
        order = frame.flatten().argsort()
        torch.testing.assert_close(by.flatten()[order[[0, -1]]], torch.tensor([1.0, 1.5]))
        assert (by.flatten()[order].diff() > -1e-6).all()


def test_frames_are_scaled_each_by_itself() -> None:
    x, across = draw(2, 6, 3, 4, 4), draw(2, 5, 3, 4, 4, seed=1)
    join = FreeUSpec().join(0)
    alone = [join(x[:, :, i : i + 1], across[:, :, i : i + 1]) for i in range(3)]
    torch.testing.assert_close(join(x, across), torch.cat(alone, dim=2))


@pytest.mark.parametrize(
    ("rows", "columns", "share"),
    [(0, 0, 1.0), (0, 1, 0.5), (1, 0, 0.5), (1, 1, 0.5), (1, -1, 0.0), (0, 2, 0.0), (2, 1, 0.0), (3, 3, 0.0)],
)
def test_the_mean_is_scaled_whole_and_the_slowest_waves_by_half(rows: int, columns: int, share: float) -> None:
    x, factor = wave(rows, columns), 0.2
    expected = (1 + share * (factor - 1)) * x
    torch.testing.assert_close(scale_low_frequencies(x, factor), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (7, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_size_and_dtype_is_kept(size: tuple[int, int], dtype: torch.dtype) -> None:
    x, across = draw(1, 4, 2, *size).to(dtype), draw(1, 3, 2, *size, seed=1).to(dtype)
    joined = FreeUSpec().join(0)(x, across)
    assert (joined.shape, joined.dtype) == ((1, 7, 2, *size), dtype)
    assert joined.isfinite().all()


def test_factors_of_one_change_nothing() -> None:
    x, across = draw(2, 6, 3, 4, 4), draw(2, 5, 3, 4, 4, seed=1)
    joined = FreeUSpec(backbone=(1.0,), skip=(1.0,)).join(0)(x, across)
    torch.testing.assert_close(joined, join_channels(x, across))


def test_levels_beyond_those_named_join_as_ever() -> None:
    assert FreeUSpec().join(2) is join_channels


def test_as_many_factors_are_asked_for_on_both_sides() -> None:
    with pytest.raises(ValueError, match="backbone has 1 levels and skip has 2; give as many"):
        FreeUSpec(backbone=(1.2,))


def network(free_u: FreeUSpec | None) -> UNet3D:
    spec = UNetSpec(
        channels=(8, 16),
        num_res_blocks=1,
        attention=PerLevel[bool](everywhere=False),
        context_dim=6,
        norm=NormSpec(groups=4),
        transformer=TransformerSpec(num_heads=PerLevel[int](everywhere=1)),
        free_u=free_u,
    )
    torch.manual_seed(0)
    return spec.build().eval()


@torch.inference_mode()
def test_a_network_begins_to_scale_at_its_coarsest_level() -> None:
    noisy, timestep, cond = draw(1, 4, 2, 8, 8), torch.tensor([100]), Conditioning(draw(1, 5, 6))
    plain = network(None)(noisy, timestep, cond)
    coarse, fine = (
        network(FreeUSpec(backbone=backbone, skip=(1.0, 1.0)))(noisy, timestep, cond)
        for backbone in ((1.5, 1.0), (1.0, 1.5))
    )
    assert not torch.equal(plain, coarse)
    assert not torch.equal(coarse, fine)
    torch.testing.assert_close(network(FreeUSpec(backbone=(1.0,), skip=(1.0,)))(noisy, timestep, cond), plain)


def test_weights_are_those_of_the_network_without_it() -> None:
    assert network(FreeUSpec()).state_dict().keys() == network(None).state_dict().keys()
