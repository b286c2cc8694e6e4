from pathlib import Path

import pytest
import torch
from small_runs import GIVEN, latent_of, small_stage
from torch import Tensor

from lavie.errors import SpecError
from lavie.stages import Given, LatentDiffusion, PixelVideo, Request

TWO_AGAIN = "coverage={type: recursive, num_frames: 5, overlap: 2}"


def told(stage: LatentDiffusion, *requests: Request) -> tuple[Tensor, list[Tensor]]:
    """Return what a stage makes, and the given frames that each call of the network saw."""
    seen: list[Tensor] = []
    hook = stage.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args[2].inputs["frames"]))
    latent = latent_of(stage, *requests)
    hook.remove()
    return latent, seen


def picture(seed: int) -> PixelVideo:
    return PixelVideo(torch.rand(1, 3, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1, 8.0)


def test_one_clip_equals_the_whole_video_at_once_bit_for_bit(tmp_path: Path) -> None:
    whole = latent_of(small_stage(tmp_path, *GIVEN))
    assert torch.equal(latent_of(small_stage(tmp_path, *GIVEN, "coverage={type: recursive, num_frames: 3}")), whole)


def test_each_clip_is_given_the_last_frames_of_the_one_before(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, *GIVEN, TWO_AGAIN, "video.num_frames=10", "guidance=none")
    latent, seen = told(stage)
    assert latent.shape[2] == 10
    assert stage.num_steps() == len(seen) == 6
    for call, start in zip(seen[::2], (0, 3, 6), strict=True):
        done = 2 if start else 0
        expected = torch.zeros(1, 5, 5, 8, 8)
        expected[:, :4, :done] = latent[:, :, start : start + done]
        expected[:, 4, :done] = 1
        assert torch.equal(call, expected)


def test_clips_go_on_as_the_network_would_from_those_frames(tmp_path: Path) -> None:
    """The second clip is what a stage makes whose given frames, as latents, are the end of the first."""
    stage = small_stage(tmp_path, *GIVEN, TWO_AGAIN, "video.num_frames=8")
    latent, seen = told(stage)
    clips = [latent_of(small_stage(tmp_path, *GIVEN, "video.num_frames=5"))]
    assert torch.equal(latent[:, :, :5], clips[0])
    assert not torch.equal(seen[0], seen[-1])
    assert not torch.allclose(latent[:, :, 5:], clips[0][:, :, 2:], atol=1e-3)


def test_frames_that_are_given_go_to_the_clips_that_they_lie_in(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, *GIVEN, TWO_AGAIN, "video.num_frames=8", "guidance=none")
    both = PixelVideo(torch.cat((picture(1).pixels, picture(2).pixels), dim=2), 8.0)
    latent, seen = told(stage, Request("a star", given=Given(both, (0, 7))))
    with torch.inference_mode():
        encoded = both.encode(stage.autoencoder)
    first, last = seen[0], seen[-1]
    assert first[0, 4, :, 0, 0].tolist() == [1, 0, 0, 0, 0]
    assert last[0, 4, :, 0, 0].tolist() == [1, 1, 0, 0, 1]
    assert torch.equal(first[:, :4, 0], encoded[:, :, 0])
    assert torch.equal(last[:, :4, 4], encoded[:, :, 1])
    assert torch.equal(last[:, :4, :2], latent[:, :, 3:5])


def test_a_video_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, *GIVEN, TWO_AGAIN, "video.num_frames=8")
    requests = Request("a red circle", seed=3), Request("a star", seed=4, given=Given(picture(1), (0,)))
    together = latent_of(stage, *requests)
    for index, request in enumerate(requests):
        torch.testing.assert_close(together[index], latent_of(stage, request)[0], rtol=0, atol=1e-4)


def test_each_clip_is_told_its_own_segment(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, *GIVEN, TWO_AGAIN, "video.num_frames=8")
    travel, red = (latent_of(stage, Request(text, seed=3)) for text in ("a red circle >> a star", "a red circle"))
    assert torch.equal(travel[:, :, :5], red[:, :, :5])
    assert not torch.allclose(travel[:, :, 5:], red[:, :, 5:], atol=1e-3)
    with pytest.raises(SpecError, match="has 3 segments, but the stage base sees the video in 2 windows"):
        latent_of(stage, Request("a star >> a circle >> a star"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((), "coverage: recursive gives each clip the last frames .* needs source given_frames with a mask"),
        (("source={type: given_frames, mask: false}",), "needs source given_frames with a mask"),
        ((*GIVEN, "coverage.overlap=0"), r"coverage.overlap: recursive needs at least one frame"),
    ],
)
def test_stages_that_cannot_go_on_are_refused_when_built(
    tmp_path: Path, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        small_stage(tmp_path, TWO_AGAIN, *changes)
