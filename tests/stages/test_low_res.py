"""The low-resolution video beside the latent: how noised it is, by closed form, and what does not fit."""

import pytest
import torch
from einops import reduce
from small_parts import UPSCALING, small_part, small_part_spec
from torch import Tensor

from lavie.blocks.autoencoder import AutoencoderKLSpec
from lavie.blocks.patches import PatchesSpec
from lavie.errors import SpecError
from lavie.samplers.noise import NoiseSource
from lavie.samplers.schedule import ScaledLinearScheduleSpec
from lavie.stages import Given, PixelVideo, Request, VideoShape
from lavie.stages.low_res import LowRes, LowResSpec, blurred

SCHEDULE = ScaledLinearScheduleSpec(beta_start=1e-4, beta_end=0.02)
BETAS = torch.linspace(1e-4**0.5, 0.02**0.5, 1000, dtype=torch.float64) ** 2
KEPT = (1 - BETAS).cumprod(0)
"""The share of the video's variance that is left at each level."""
TINY = AutoencoderKLSpec(channels=(4, 4, 4), num_res_blocks=1, norm_groups=2, attention=False).build()
SHAPE = VideoShape(num_frames=3, height=32, width=32)
VIDEO = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def source(**fields: object) -> LowRes:
    return LowResSpec(schedule=SCHEDULE, **fields).build()  # type: ignore[arg-type]


def inputs(made: LowRes, seed: int = 3, video: Tensor = VIDEO[:1]) -> dict[str, Tensor]:
    given = Given(PixelVideo(video, 8.0))
    return {**made.inputs(given, SHAPE, TINY, NoiseSource(seed, made.stage))}


@pytest.mark.parametrize("level", [0, 50, 350])
def test_the_video_is_noised_as_much_as_its_level_says(level: int) -> None:
    found = inputs(source(noise_level=level))
    noise = NoiseSource(3, "upscaling").draw("low_res", 0, (3, 3, 8, 8))
    due = KEPT[level].sqrt() * VIDEO[:1] + (1 - KEPT[level]).sqrt() * noise
    torch.testing.assert_close(found["low_res"], due.float(), rtol=0, atol=1e-6)
    assert found["noise_level"].tolist() == [level]


def test_each_video_has_noise_of_its_own_seed() -> None:
    made = source()
    assert torch.equal(inputs(made, 3)["low_res"], inputs(made, 3)["low_res"])
    assert not torch.equal(inputs(made, 3)["low_res"], inputs(made, 4)["low_res"])


def test_training_noises_each_video_to_the_level_that_it_tells() -> None:
    made, grey = source(max_noise_level=200), torch.zeros(400, 3, 2, 32, 32)
    shown = made.examples(grey, torch.zeros(400, 4, 2, 8, 8), torch.Generator().manual_seed(0))
    levels = shown["noise_level"]
    assert {int(levels.min()), int(levels.max())} <= {0, 1, 2, 198, 199, 200}
    assert float(levels.float().mean()) == pytest.approx(100, abs=10)
    spread = shown["low_res"].flatten(1).std(dim=1) / (1 - KEPT[levels]).sqrt()
    assert float(spread.mean()) == pytest.approx(1, abs=0.01)
    assert float((spread - 1).abs().max()) < 0.2


def test_what_is_given_is_the_mean_of_each_square_of_pixels() -> None:
    video = torch.rand(2, 3, 3, 16, 8)
    given = source().given(video, fps=8.0)
    small = reduce(video, "b c f (h p) (w q) -> b c f h w", "mean", p=4, q=4)
    torch.testing.assert_close(torch.cat([each.video.video() for each in given]), small)


def test_the_result_is_larger_by_the_factor_and_plays_as_fast() -> None:
    given = VideoShape(num_frames=61, height=320, width=512, fps=24)
    made = LowResSpec(schedule=SCHEDULE).shape(given, own=SHAPE)
    assert made == VideoShape(num_frames=61, height=1280, width=2048, fps=24)


def test_more_noise_than_training_shows_is_refused() -> None:
    with pytest.raises(ValueError, match="noise_level: 60 is above max_noise_level, 50"):
        LowResSpec(schedule=SCHEDULE, noise_level=60, max_noise_level=50)


def test_a_factor_that_is_not_the_autoencoders_is_refused_when_the_stage_is_built() -> None:
    with pytest.raises(SpecError, match=r"source\.factor: the video grows by 2, but the autoencoder's factor is 4"):
        small_part_spec(UPSCALING, "source.factor=2").build()


def test_training_blurs_up_to_as_much_as_it_may() -> None:
    point = torch.zeros(64, 3, 1, 32, 32)
    point[..., 14:18, 14:18] = 1.0
    latent = torch.zeros(64, 4, 1, 8, 8)
    shown = source(noise_level=0, max_noise_level=0, max_blur=1.5).examples(point, latent, torch.Generator())
    sharp = source(noise_level=0, max_noise_level=0).examples(point, latent, torch.Generator())
    peaks = (each["low_res"].flatten(1).max(dim=1).values for each in (shown, sharp))
    blurry, clear = peaks
    assert float(clear.min()) > 0.2
    assert float(blurry.min()) < 0.5 * float(clear.min())
    assert len({round(float(peak), 2) for peak in blurry}) > 5


def test_a_blur_is_the_gaussian_it_says() -> None:
    point = torch.zeros(2, 3, 1, 17, 17)
    point[..., 8, 8] = 1.0
    spreads = torch.tensor([0.0, 1.2])
    kept, spread = blurred(point, spreads)
    torch.testing.assert_close(kept, point[0])
    places = torch.arange(17) - 8.0
    variance = (spread[0, 0].sum(dim=0) * places**2).sum()
    assert float(spread[0, 0].sum()) == pytest.approx(1)
    assert float(variance) == pytest.approx(1.2**2, rel=0.02)


def test_a_residual_is_what_the_enlarged_video_lacks() -> None:
    made, patches = source(residual=True, noise_level=20), PatchesSpec(factor=4, scaling_factor=3.0).build()
    flat = torch.full((1, 3, 2, 8, 8), 0.25)
    found = made.inputs(
        Given(PixelVideo(flat, 8.0)), VideoShape(num_frames=2, height=32, width=32), patches, NoiseSource(0, "x")
    )
    baseline = made.baseline(found, patches)
    assert baseline is not None
    noise = (1 - KEPT[20]).sqrt() / KEPT[20].sqrt()
    assert float(patches.decode(baseline).mean()) == pytest.approx(0.25, abs=3 * float(noise) / 8)
    assert source().baseline(found, patches) is None


def test_the_residual_is_added_to_the_baseline() -> None:
    """With equal networks and noise, making residuals differs from making whole videos by the baseline alone."""
    residual = small_part(UPSCALING, "source.residual=true")
    whole = small_part(UPSCALING)
    requests = [Request("", given=Given(PixelVideo(VIDEO[:1], 8.0)))]
    difference = residual.generate(requests).latent - whole.generate(requests).latent
    assert residual.source is not None
    told = residual.source.inputs(requests[0].given, SHAPE, residual.autoencoder, NoiseSource(0, "upscaling"))
    baseline = residual.source.baseline(told, residual.autoencoder)
    assert baseline is not None
    torch.testing.assert_close(difference, baseline, rtol=0, atol=1e-5)


def test_training_sends_half_of_the_videos_through_an_autoencoder() -> None:
    """The autoencoder is one of coarse latents, so what went through it has lost its fine detail."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        through = AutoencoderKLSpec(channels=(4, 4, 4), num_res_blocks=1, norm_groups=2, attention=False).build().eval()
    video = torch.rand(200, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = torch.zeros(200, 4, 1, 8, 8)
    plain, sent = (
        source(noise_level=0, max_noise_level=0).examples(video, latent, torch.Generator().manual_seed(1), each)[
            "low_res"
        ]
        for each in (None, through)
    )
    small = reduce(video, "b c f (h p) (w q) -> b c f h w", "mean", p=4, q=4)
    with torch.no_grad():
        decoded = through.decode(through.encode(small)).clamp(-1, 1)
    kept = [torch.allclose(one, other, atol=0.1) for one, other in zip(sent, small, strict=True)]
    passed = [torch.allclose(one, other, atol=0.1) for one, other in zip(sent, decoded, strict=True)]
    assert all(a != b for a, b in zip(kept, passed, strict=True))
    assert 70 < sum(passed) < 130
    torch.testing.assert_close(plain, small, rtol=0, atol=0.1)
