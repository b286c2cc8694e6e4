import pytest
import torch
from torch import nn

from lavie.blocks.autoencoder import AutoencoderKL, AutoencoderKLSpec

SMALL = AutoencoderKLSpec(
    channels=(8, 16, 16), num_res_blocks=1, latent_channels=3, scaling_factor=0.5, norm_groups=4, decode_chunk=2
)


@pytest.fixture
def autoencoder() -> AutoencoderKL:
    torch.manual_seed(0)
    return SMALL.build()


@pytest.fixture
def video() -> torch.Tensor:
    return torch.rand(2, 3, 3, 16, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def twin(autoencoder: AutoencoderKL, **changes: object) -> AutoencoderKL:
    """Return an autoencoder with the same weights and other settings."""
    other = SMALL.model_copy(update=changes).build()
    other.load_state_dict(autoencoder.state_dict())
    return other


@torch.no_grad()
def test_a_latent_is_smaller_by_the_factor_and_decodes_to_the_size_of_the_video(autoencoder, video):
    latent = autoencoder.encode(video)
    assert autoencoder.factor == 4
    assert latent.shape == (2, autoencoder.latent_channels, 3, 4, 2)
    assert autoencoder.decode(latent).shape == video.shape


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_number_of_frames_at_once_changes_nothing(autoencoder, video, chunk):
    other = twin(autoencoder, decode_chunk=chunk)
    latent = autoencoder.encode(video)
    torch.testing.assert_close(other.encode(video), latent, rtol=0, atol=1e-5)
    torch.testing.assert_close(other.decode(latent), autoencoder.decode(latent), rtol=0, atol=1e-5)


@torch.no_grad()
def test_no_more_frames_than_the_chunk_are_in_the_network_at_once(autoencoder, video):
    seen = []
    for conv in (autoencoder.encoder.conv_in, autoencoder.decoder.conv_in):
        conv.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    autoencoder.decode(autoencoder.encode(video[:1]))
    assert seen == [2, 1, 2, 1]


@torch.no_grad()
def test_frames_do_not_see_each_other(autoencoder, video):
    changed = video.clone()
    changed[0, :, 1] = 0.0
    latent, other = autoencoder.encode(video), autoencoder.encode(changed)
    same = torch.ones(2, 3, dtype=torch.bool)
    same[0, 1] = False
    differs = (latent - other).abs().amax(dim=(1, 3, 4))
    assert differs[same].max() == 0
    assert differs[0, 1] > 1e-3


@torch.no_grad()
def test_without_a_generator_the_latent_is_the_scaled_mean(autoencoder, video):
    torch.testing.assert_close(autoencoder.encode(video), autoencoder.moments(video)[0] * 0.5, rtol=0, atol=0)


@torch.no_grad()
def test_draws_come_from_the_posterior_and_from_the_generator_alone(autoencoder, video):
    mean, log_variance = autoencoder.moments(video)
    first, again = (autoencoder.encode(video, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(first, 0.5 * (mean + torch.exp(0.5 * log_variance) * noise))


@torch.no_grad()
def test_decoding_undoes_the_scaling_factor(autoencoder, video):
    unscaled = twin(autoencoder, scaling_factor=1.0)
    latent = unscaled.encode(video)
    torch.testing.assert_close(autoencoder.encode(video), latent * 0.5, rtol=0, atol=0)
    torch.testing.assert_close(autoencoder.decode(latent * 0.5), unscaled.decode(latent), rtol=0, atol=0)


@torch.no_grad()
def test_the_log_variance_stays_in_its_range(autoencoder, video):
    nn.init.constant_(autoencoder.quant_conv.bias, 1e3)
    assert autoencoder.moments(video)[1].max() == 20.0
    nn.init.constant_(autoencoder.quant_conv.bias, -1e3)
    assert autoencoder.moments(video)[1].min() == -30.0


def test_every_parameter_gets_a_gradient(autoencoder, video):
    autoencoder.decode(autoencoder.encode(video, torch.Generator().manual_seed(0))).square().mean().backward()
    # A bias before the softmax of keys shifts all logits alike, so its gradient is zero but for rounding.
    idle = {name for name, each in autoencoder.named_parameters() if each.grad is None or not each.grad.any()}
    assert {name for name in idle if not name.endswith("mix.key.bias")} == set()


@torch.no_grad()
def test_activations_stay_in_channels_last_memory(autoencoder, video):
    strays = []

    def check(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if not args[0].is_contiguous(memory_format=torch.channels_last):
            strays.append(module)

    for module in autoencoder.modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            module.register_forward_pre_hook(check)
    decoded = autoencoder.decode(autoencoder.encode(video))
    assert strays == []
    assert decoded.is_contiguous(memory_format=torch.channels_last_3d)


def test_group_norms_have_the_autoencoders_own_epsilon(autoencoder):
    norms = [module for module in autoencoder.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.eps for norm in norms} == {1e-6}
    assert {norm.num_groups for norm in norms} == {4}


@torch.no_grad()
def test_without_attention_distant_pixels_do_not_meet():
    torch.manual_seed(0)
    wide = torch.zeros(1, 3, 1, 4, 256)
    reached = {}
    for attention in (True, False):
        spec = AutoencoderKLSpec(channels=(4, 4), num_res_blocks=1, norm_groups=4, attention=attention)
        autoencoder = spec.build()
        for module in autoencoder.modules():
            if isinstance(module, nn.GroupNorm):  # norms pool over the image; fixed ones leave only the attention
                module.forward = nn.Identity().forward
        change = wide.clone()
        change[..., 0] = 1.0
        reached[attention] = float((autoencoder.encode(change) - autoencoder.encode(wide))[..., -1].abs().max())
    assert reached[True] > 0
    assert reached[False] == 0


def test_sizes_that_the_factor_does_not_divide_are_refused(autoencoder):
    with pytest.raises(ValueError, match="18x8 pixels: both must be multiples of 4"):
        autoencoder.encode(torch.zeros(1, 3, 1, 18, 8))


def test_channels_that_the_groups_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="12 cannot be split into norm_groups = 8 groups"):
        AutoencoderKLSpec(channels=(8, 12), norm_groups=8)


@torch.no_grad()
def test_half_precision_weights_take_half_precision_videos(autoencoder, video):
    exact = autoencoder.decode(autoencoder.encode(video))
    half = autoencoder.bfloat16()
    rounded = half.decode(half.encode(video.bfloat16()))
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).abs().mean() < 0.05 * exact.abs().mean()
