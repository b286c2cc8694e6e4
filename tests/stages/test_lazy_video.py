"""Videos are made when asked for: in whatever pieces, the same pixels; and latents are not made of pixels twice."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder, AutoencoderKLSpec
from lavie.stages import LatentVideo, LazyVideo, PixelVideo, lazy_video
from lavie.video import to_frames

NUM_FRAMES, SIDE = 7, 8
SPEC = AutoencoderKLSpec(channels=(4, 4), num_res_blocks=1, norm_groups=2, attention=False)


def autoencoder(seed: int = 0, **fields: object) -> Autoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SPEC.model_copy(update=fields).build().eval()


def draw(*size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def pixel_video() -> PixelVideo:
    return PixelVideo(draw(2, 3, NUM_FRAMES, SIDE, SIDE).clamp(-1, 1), fps=8.0)


def latent_video(**fields: object) -> LatentVideo:
    return LatentVideo(draw(2, 4, NUM_FRAMES, SIDE // 2, SIDE // 2), autoencoder(**fields), fps=8.0)


VIDEOS = [pixel_video, latent_video, lambda: latent_video(decode_chunk=64)]
each_video = pytest.mark.parametrize("make", VIDEOS, ids=["pixels", "latents", "latents in large chunks"])


@each_video
def test_frames_are_slices_of_the_video(make) -> None:
    video = make()
    whole = video.video()
    assert whole.shape == (video.batch_size, 3, video.num_frames, video.height, video.width) == (2, 3, 7, 8, 8)
    assert float(whole.abs().max()) <= 1
    for start, stop in [(0, 1), (2, 5), (6, 7), (0, 7)]:
        torch.testing.assert_close(video.frames(start, stop), whole[:, :, start:stop], rtol=0, atol=1e-6)


@each_video
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_the_size_of_chunks_never_changes_pixels(make, size: int) -> None:
    chunks = list(make().chunks(size))
    assert [chunk.shape[2] for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
    torch.testing.assert_close(torch.cat(chunks, dim=2), make().video(), rtol=0, atol=1e-6)


@each_video
def test_selecting_and_splitting_commute_with_making_pixels(make) -> None:
    video, places = make(), [5, 0, 5]
    whole = video.video()
    torch.testing.assert_close(video.select(places).video(), whole[:, :, places], rtol=0, atol=1e-6)
    alone = [each.video() for each in video.split()]
    assert [each.batch_size for each in video.split()] == [1, 1]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("most", [1, 3 * SIDE * SIDE, 10**6])
def test_pictures_are_the_video_in_bytes_however_many_are_decoded_at_a_time(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_video, "CHUNK_PIXELS", most)
    one = pixel_video().split()[1]
    assert np.array_equal(np.stack(list(one.pictures())), to_frames(one.video()[0]))


@pytest.mark.parametrize("is_drawn", [False, True])
def test_encoding_in_chunks_is_encoding_the_whole(is_drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    video, network, latents = pixel_video().split()[0], autoencoder(), []
    for most in (1, 3 * SIDE * SIDE, 10**6):
        monkeypatch.setattr(lazy_video, "CHUNK_PIXELS", most)
        generator = torch.Generator().manual_seed(2) if is_drawn else None
        latents.append(video.encode(network, generator))
    for latent in latents[1:]:
        torch.testing.assert_close(latent, latents[0], rtol=0, atol=1e-6)
    whole = network.encode(video.video()).detach()
    assert torch.allclose(latents[0], whole, rtol=0, atol=1e-6) != is_drawn


def test_pixels_can_be_trained_on() -> None:
    pixels, weight = latent_video().video(), torch.ones((), requires_grad=True)
    (weight * pixels).sum().backward()
    assert weight.grad == pixels.sum()


def test_only_a_few_frames_are_pixels_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_video, "CHUNK_PIXELS", 2 * SIDE * SIDE)
    video, sizes = latent_video(), []
    decode = video.autoencoder.decode
    monkeypatch.setattr(video.autoencoder, "decode", lambda latent: sizes.append(latent.shape[2]) or decode(latent))
    video.encode(autoencoder(seed=1))
    assert sizes == [2, 2, 2, 1]


@pytest.mark.parametrize("is_copy", [False, True])
def test_the_autoencoder_that_would_decode_a_latent_gets_it_as_it_is(
    is_copy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = latent_video()
    receiver = autoencoder() if is_copy else video.autoencoder
    assert (receiver is video.autoencoder) != is_copy
    monkeypatch.setattr(video.autoencoder, "decode", None)
    monkeypatch.setattr(receiver, "encode", None)
    assert torch.equal(video.encode(receiver), video.latent)


OTHERS = [{"seed": 1}, {"scaling_factor": 0.2}, {"norm_groups": 1}, {"channels": (4, 4, 4)}]


@pytest.mark.parametrize("fields", OTHERS, ids=lambda fields: next(iter(fields)))
def test_any_other_autoencoder_gets_pixels(fields: dict[str, int]) -> None:
    video, receiver = latent_video(), autoencoder(**fields)
    with torch.no_grad():
        torch.testing.assert_close(video.encode(receiver), receiver.encode(video.video()), rtol=0, atol=1e-5)


def test_one_other_weight_makes_another_autoencoder() -> None:
    video, receiver = latent_video(), autoencoder()
    assert torch.equal(video.encode(receiver), video.latent)
    with torch.no_grad():
        receiver.quant_conv.bias[0] += 0.1
    assert not torch.equal(video.encode(receiver), video.latent)


def test_a_draw_from_the_posterior_is_one_of_pixels() -> None:
    video = latent_video().split()[0]
    drawn = video.encode(video.autoencoder, torch.Generator().manual_seed(0))
    pixels: LazyVideo = PixelVideo(video.video(), video.fps)
    again = pixels.encode(video.autoencoder, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, again, rtol=0, atol=1e-5)
    assert not torch.allclose(drawn, pixels.encode(video.autoencoder), atol=1e-3)
