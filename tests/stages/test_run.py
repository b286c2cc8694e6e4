from pathlib import Path

import pytest
import torch
from small_runs import run_of, small_stage

from lavie.errors import SpecError
from lavie.stages import Part


@torch.inference_mode()
def test_equal_noise_levels_for_all_frames_are_one_noise_level(tmp_path: Path) -> None:
    run = run_of(small_stage(tmp_path), 5)
    noisy = run.initial()
    each = run.denoise(levels=[1.5] * 5)(noisy, 1.5)
    torch.testing.assert_close(each, run.denoise()(noisy, 1.5), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_frames_see_their_own_noise_level(tmp_path: Path) -> None:
    run = run_of(small_stage(tmp_path), 3)
    noisy = run.initial()
    falling, rising = (run.denoise(levels=levels)(noisy, 1.0) for levels in ([3.0, 1.0, 0.3], [0.3, 1.0, 3.0]))
    assert not torch.allclose(falling[:, :, 0], rising[:, :, 0], atol=1e-2)


@torch.inference_mode()
def test_guidance_may_compare_the_network_with_itself_gone_blind(tmp_path: Path) -> None:
    stage, plain = (
        small_stage(tmp_path, f"guidance={each}") for each in ("{type: perturbed_attention, places: [0]}", "cfg")
    )
    run = run_of(stage, 3)
    noisy = run.initial()
    assert not torch.allclose(run.denoise()(noisy, 1.0), run_of(plain, 3).denoise()(noisy, 1.0), atol=1e-4)


def test_places_without_self_attention_are_refused_with_those_that_have_it(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, "guidance={type: perturbed_attention, places: [1]}")
    with pytest.raises(SpecError, match=r"guidance.places: no self-attention at 1; the network has it at 0, mid"):
        run_of(stage, 3).denoise()


@torch.inference_mode()
def test_parts_are_told_where_in_the_video_they_lie_and_the_whole_is_not(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, "guidance=none")
    run, told = run_of(stage, 9), []
    stage.denoiser.register_forward_pre_hook(lambda _, args: told.append(args[2].inputs.get("frame_places")))
    for frames in (range(9), range(2, 5), range(-1, 2), range(7, 10)):
        run.denoise(Part(frames))(torch.zeros(1, 4, len(frames), 8, 8), 1.0)
    assert told[0] is None
    assert [each.tolist() for each in told[1:]] == [[0.25, 0.375, 0.5], [0, 0, 0.125], [0.875, 1, 1]]
