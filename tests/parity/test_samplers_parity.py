"""Solvers and tables against recorded trajectories of diffusers and of the official code."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from lavie.samplers import LinearScheduleSpec, ScaledLinearScheduleSpec, ScheduleSpec, replay

pytestmark = pytest.mark.parity
GOLDEN = Path(__file__).parents[1] / "golden"
TRAJECTORIES = sorted(GOLDEN.glob("sched_*.safetensors"))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize("path", TRAJECTORIES, ids=lambda path: path.stem)
def test_recorded_trajectory_is_reproduced(path: Path) -> None:
    tensors, metadata = load(path)
    ours = replay(tensors, metadata)
    error = (ours.trajectory - tensors["x"]).abs().max() / tensors["x"].abs().max()
    assert error <= 1e-5
    assert ours.timesteps == pytest.approx(tensors["timesteps"].tolist(), abs=1e-3)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (LinearScheduleSpec(), "linear_1e-4_0.02"),
        (ScaledLinearScheduleSpec(), "scaled_linear_1e-4_0.02"),
        (ScaledLinearScheduleSpec(beta_start=0.00085, beta_end=0.012), "scaled_linear_0.00085_0.012"),
    ],
)
def test_alphas_cumprod_are_the_published_ones(spec: ScheduleSpec, key: str) -> None:
    expected = load(GOLDEN / "misc_tables.safetensors")[0][f"alphas_cumprod_f32.{key}"].double()
    alpha, _ = spec.build().scales(spec.build().sigmas)
    torch.testing.assert_close(alpha**2, expected, rtol=5e-6, atol=0)


def test_every_solver_of_the_official_scripts_has_a_trajectory() -> None:
    assert len(TRAJECTORIES) >= 5
