from pathlib import Path

import pytest
import torch
from small_runs import GIVEN, latent_of, run_of, small_stage
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, Denoiser
from lavie.errors import SpecError
from lavie.stages import LatentDiffusion, Request

STEPS = [2, 4, 11]
"""Fewer than the frames of a window, as many, and several windows of them."""


class EachAlone(Denoiser):
    """A network that looks at no other frame; keeps what timesteps it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.told: list[Tensor] = []

    def forward(self, noisy: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        self.told.append(timestep)
        t = timestep / 1000 if timestep.ndim == 2 else timestep[:, None] / 1000
        return self.weight * noisy * (1 + t[:, None, :, None, None]) + t[:, None, :, None, None]


def fifo_stage(folder: Path, steps: int, *changes: str) -> LatentDiffusion:
    coverage = "coverage={type: fifo, num_frames: 4, overlap: 2}"
    return small_stage(folder, coverage, f"sampler.num_inference_steps={steps}", *changes)


def test_a_video_that_the_network_sees_at_once_is_made_at_once(tmp_path: Path) -> None:
    whole = latent_of(small_stage(tmp_path, "sampler.num_inference_steps=3"))
    assert torch.equal(latent_of(fifo_stage(tmp_path, 3)), whole)


@torch.inference_mode()
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("sampler", ["euler", "ddim", "ddpm"])
def test_where_frames_do_not_meet_each_is_what_it_would_be_alone(tmp_path: Path, steps: int, sampler: str) -> None:
    """In the queue a frame takes the same steps from the same noise as everywhere else."""
    change = f"sampler={{type: {sampler}, num_inference_steps: {steps}}}"
    stage = small_stage(tmp_path, "coverage={type: fifo, num_frames: 4, overlap: 2}", change, "guidance=none")
    stage.denoiser = EachAlone()
    run = run_of(stage, 9)
    latent, alone = stage.coverage.latent(run), run.sample(run.denoise(), run.initial())
    torch.testing.assert_close(latent[:, :, 4:], alone[:, :, 4:], rtol=1e-5, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("steps", STEPS)
def test_the_network_is_told_noisier_timesteps_for_later_frames(tmp_path: Path, steps: int) -> None:
    stage = fifo_stage(tmp_path, steps, "guidance=none")
    stage.denoiser = network = EachAlone()
    stage.coverage.latent(run_of(stage, 9))
    turns = network.told[steps:]
    grid = stage.sampler.timesteps
    assert {told.shape[1] for told in turns} == {4}
    assert all((told.diff(dim=1) >= 0).all() for told in turns)
    told = sorted({round(each, 1) for turn in turns for each in turn.flatten().tolist()}, reverse=True)
    assert told == pytest.approx(grid, abs=0.1)


@pytest.mark.parametrize("steps", STEPS)
def test_it_reports_as_many_steps_as_it_announces(tmp_path: Path, steps: int) -> None:
    stage = fifo_stage(tmp_path, steps, "video.num_frames=7", "guidance=none")
    reported: list[tuple[int, int]] = []
    with torch.inference_mode():
        latent = stage.generate(
            [Request("a star")], lambda _, step: reported.append((step.index, step.num_steps))
        ).latent
    assert latent.shape[2] == 7
    assert len(reported) == stage.num_steps()
    turns = reported[steps:]
    assert turns == [(index, len(turns)) for index in range(len(turns))]


def test_a_video_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    stage = fifo_stage(tmp_path, 4, "video.num_frames=7")
    requests = Request("a red circle", seed=3), Request("a star >> a red star", seed=4)
    together = latent_of(stage, *requests)
    for index, request in enumerate(requests):
        torch.testing.assert_close(together[index], latent_of(stage, request)[0], rtol=0, atol=1e-4)


def test_the_text_changes_on_the_way(tmp_path: Path) -> None:
    stage = fifo_stage(tmp_path, 2, "video.num_frames=12")
    travel, red = (latent_of(stage, Request(text, seed=3)) for text in ("a red circle >> a star", "a red circle"))
    assert torch.equal(travel[:, :, :3], red[:, :, :3])
    assert not torch.allclose(travel[:, :, 9:], red[:, :, 9:], atol=1e-3)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "unipc", "dpmpp_2m_sde", "free_init"])
def test_solvers_that_take_more_than_one_step_at_a_time_are_refused_with_the_reason(
    tmp_path: Path, sampler: str
) -> None:
    with pytest.raises(SpecError, match=r"coverage: every frame of the queue is at another step, .* use ddim, euler"):
        fifo_stage(tmp_path, 4, f"sampler={sampler}")


def test_given_frames_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="coverage: fifo makes videos from text alone; with given frames use windows"):
        fifo_stage(tmp_path, 4, *GIVEN)
