from pathlib import Path

import pytest
import torch
from small_runs import latent_of, run_of, small_stage
from torch import Tensor

from lavie.samplers.noise import NoiseSource
from lavie.stages.free_noise import shuffled_frames

SOURCE = NoiseSource(7)


@pytest.mark.parametrize(("window", "stride"), [(4, 1), (16, 4), (5, 3), (6, 6)])
def test_the_first_window_keeps_its_noise_and_the_rest_repeats_it_block_by_block(window: int, stride: int) -> None:
    order = shuffled_frames(SOURCE, 40, window, stride)
    assert order[:window] == list(range(window))
    rest = order[window:]
    blocks = [list(range(start, min(start + stride, window))) for start in range(0, window, stride)]
    turn = 0
    while rest:
        block = blocks[turn % len(blocks)]
        assert set(rest[: len(block)]) <= set(block)
        if len(rest) >= len(block):
            assert sorted(rest[: len(block)]) == block
        rest, turn = rest[len(block) :], turn + 1


def test_the_order_is_a_function_of_the_seed_and_grows_with_the_video() -> None:
    long = shuffled_frames(SOURCE, 60, 16, 8)
    assert shuffled_frames(SOURCE, 40, 16, 8) == long[:40]
    assert shuffled_frames(NoiseSource(8), 60, 16, 8) != long
    assert shuffled_frames(SOURCE, 60, 16, 8) == long


def test_a_video_of_one_window_equals_the_whole_at_once_bit_for_bit(tmp_path: Path) -> None:
    whole = latent_of(small_stage(tmp_path))
    assert torch.equal(
        latent_of(small_stage(tmp_path, "coverage={type: free_noise, num_frames: 4, overlap: 2}")), whole
    )


@torch.inference_mode()
def test_windows_start_from_the_shuffled_noise_of_the_first(tmp_path: Path) -> None:
    stage = small_stage(tmp_path, "coverage={type: free_noise, num_frames: 4, overlap: 2}")
    run, starts = run_of(stage, 9), []
    walk = stage.sampler.steps

    def steps(denoise, initial: Tensor, noise):  # type: ignore[no-untyped-def]
        starts.append(initial)
        return walk(denoise, initial, noise)

    stage.sampler.steps = steps  # type: ignore[method-assign]
    stage.coverage.latent(run)
    order = shuffled_frames(run.sources[0], 9, 4, 2)
    assert torch.equal(starts[0], run.initial()[:, :, order])
