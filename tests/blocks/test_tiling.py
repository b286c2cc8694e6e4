import pytest
import torch
from torch import Tensor

from lavie.blocks import tiling
from lavie.blocks.autoencoder import AutoencoderKL, AutoencoderKLSpec

SPEC = AutoencoderKLSpec(channels=(8, 16, 32), num_res_blocks=1, latent_channels=3, norm_groups=4)


def twins(tile: int, **changes: object) -> tuple[AutoencoderKL, AutoencoderKL]:
    """Return two autoencoders of the same weights, one of which works in tiles."""
    torch.manual_seed(0)
    whole, tiled = (SPEC.model_copy(update={**changes, "tile": each}).build() for each in (None, tile))
    for norm in (module for module in whole.modules() if isinstance(module, torch.nn.GroupNorm)):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    tiled.load_state_dict(whole.state_dict())
    return whole, tiled


def uneven_video(height: int, width: int) -> Tensor:
    """Return a video whose parts differ in brightness and contrast, so that tiles have unlike statistics."""
    noise = torch.rand(2, 3, 2, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return noise * torch.linspace(0, 1, width) * 0.5 + torch.linspace(-0.5, 0.5, height)[:, None]


@torch.no_grad()
@pytest.mark.parametrize("tile", [8, 11, 64])
@pytest.mark.parametrize("attention", [True, False])
def test_tiles_change_nothing_but_the_rounding(tile: int, attention: bool) -> None:
    whole, tiled = twins(tile, attention=attention)
    video = uneven_video(36, 44)
    latent = whole.encode(video)
    torch.testing.assert_close(tiled.encode(video), latent, rtol=0, atol=1e-5)
    torch.testing.assert_close(tiled.decode(latent), whole.decode(latent), rtol=0, atol=2e-5)


@torch.no_grad()
def test_tiles_that_run_on_their_own_would_show() -> None:
    """What the shared statistics are for."""
    whole, _ = twins(8)
    latent = whole.encode(uneven_video(36, 44))
    decoded, alone = whole.decode(latent), whole.decode(latent[..., :8, :8])
    inner = (..., slice(0, 16), slice(0, 16))
    assert (decoded[inner] - alone[inner]).abs().mean() > 0.05 * decoded.std()


@torch.no_grad()
def test_no_convolution_works_on_more_than_a_tile_and_its_border(monkeypatch: pytest.MonkeyPatch) -> None:
    _, tiled = twins(8)
    sizes: list[int] = []
    convolve = torch.nn.functional.conv2d

    def record(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        sizes.extend(x.shape[2:])
        return convolve(x, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(tiling.F, "conv2d", record)
    tiled.decoder.eval()
    tiling.run_in_tiles(tiled.decoder, torch.randn(1, 3, 12, 12), 8)
    assert sizes
    assert max(sizes) == 12
    sizes.clear()
    tiling.run_in_tiles(tiled.encoder, torch.randn(1, 3, 32, 32), 8)
    assert max(sizes) == 17


@torch.no_grad()
def test_the_input_is_left_as_it_was() -> None:
    _, tiled = twins(8)
    latent = torch.randn(1, 3, 1, 12, 12)
    before = latent.clone()
    tiled.decode(latent)
    assert torch.equal(latent, before)


@torch.no_grad()
def test_half_precision_is_kept() -> None:
    whole, tiled = twins(8)
    latent = whole.encode(uneven_video(36, 44))
    exact = whole.decode(latent)
    rounded = tiled.bfloat16().decode(latent.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_with_gradients_everything_is_kept_and_nothing_tiled() -> None:
    whole, tiled = twins(8)
    video = uneven_video(16, 16)
    for autoencoder in (whole, tiled):
        autoencoder.decode(autoencoder.encode(video)).square().mean().backward()
    for one, other in zip(whole.parameters(), tiled.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
