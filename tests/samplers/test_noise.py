"""Noise depends on seed, stage, purpose, step and frame, and on nothing else."""

import pytest
import torch
from torch import Tensor

from lavie.samplers import NoiseSource, batch_noise

SHAPE = (4, 5, 6, 7)


def frame(source: NoiseSource, purpose: str = "initial", step: int = 0, index: int = 0) -> Tensor:
    return source.draw(purpose, step, SHAPE)[:, index]


def test_noise_of_a_frame_does_not_depend_on_the_number_of_frames() -> None:
    source = NoiseSource(3)
    assert torch.equal(source.draw("initial", 0, (4, 2, 6, 7)), source.draw("initial", 0, SHAPE)[:, :2])


def test_noise_does_not_depend_on_the_order_of_draws_or_the_global_generator() -> None:
    source = NoiseSource(3)
    first, second = source.draw("initial", 0, SHAPE), source.draw("step", 1, SHAPE)
    torch.manual_seed(99)
    assert torch.equal(source.draw("step", 1, SHAPE), second)
    state = torch.get_rng_state()
    assert torch.equal(source.draw("initial", 0, SHAPE), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_does_not_depend_on_threads_defaults_or_device_context() -> None:
    expected = NoiseSource(3).draw("initial", 0, SHAPE)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    try:
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            noise = NoiseSource(3).draw("initial", 0, SHAPE)
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
    assert torch.equal(noise, expected)


def test_noise_of_a_sample_does_not_depend_on_its_batch() -> None:
    sources = [NoiseSource(seed) for seed in (5, 6, 7)]
    batch = batch_noise(sources, "step")(4, (3, *SHAPE))
    alone = batch_noise(sources[1:2], "step")(4, (1, *SHAPE))
    assert torch.equal(batch[1:2], alone)
    assert torch.equal(batch[1], sources[1].draw("step", 4, SHAPE))


def test_everything_that_names_a_draw_changes_it() -> None:
    source = NoiseSource(3)
    draws = [
        frame(source),
        frame(NoiseSource(4)),
        frame(NoiseSource(-3)),
        frame(NoiseSource(3 + 2**32)),
        frame(NoiseSource(3 + 2**64)),
        frame(NoiseSource(3, "interpolation")),
        frame(source, "step"),
        frame(source, step=1),
        frame(source, index=1),
    ]
    for i, one in enumerate(draws):
        for other in draws[i + 1 :]:
            assert (one != other).any()


def test_names_that_run_together_stay_apart() -> None:
    assert (NoiseSource(1, "a").draw("b,c", 1, SHAPE) != NoiseSource(1, "a,b").draw("c", 1, SHAPE)).any()
    assert (NoiseSource(1, "1").draw("x", 1, SHAPE) != NoiseSource(11, "").draw("x", 1, SHAPE)).any()


def test_noise_is_standard_normal_and_uncorrelated() -> None:
    noise = NoiseSource(0).draw("initial", 0, (4, 16, 32, 32))
    assert noise.dtype == torch.float32
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    frames = noise.movedim(1, 0).flatten(1)
    correlation = torch.corrcoef(frames) - torch.eye(16)
    assert correlation.abs().max().item() < 0.08


def test_a_batch_of_another_size_is_a_programming_error() -> None:
    with pytest.raises(AssertionError, match="a batch of 2 for 1 noise sources"):
        batch_noise([NoiseSource(0)], "step")(0, (2, *SHAPE))
